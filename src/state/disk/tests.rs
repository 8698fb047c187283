//! On a real file system, in the system's directory for temporary files.

use super::*;

/// A directory of its own, gone when dropped.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let name = format!("millrace-state-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn shelf(&self) -> DiskShelf {
        DiskShelf::new(self.0.clone())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn entry(drawer: Drawer, number: u32) -> (Drawer, Vec<u8>, Vec<u8>) {
    (drawer, number.to_be_bytes().to_vec(), vec![7; 40])
}

fn batch(drawer: Drawer, numbers: std::ops::Range<u32>) -> Batch {
    Batch(numbers.map(|number| entry(drawer, number)).collect())
}

fn holds(shelf: &DiskShelf, drawer: Drawer, number: u32) -> bool {
    shelf.get(drawer, &number.to_be_bytes()).unwrap().is_some()
}

#[test]
fn nothing_is_made_before_there_is_something_to_keep() {
    let home = Home::new("nothing");
    let mut shelf = home.shelf();
    shelf.open().unwrap();
    assert!(!holds(&shelf, Drawer::Index, 1));
    shelf.clear(Drawer::Answers(1)).unwrap();
    shelf.reset().unwrap();
    assert!(!home.0.exists());
}

#[test]
fn answers_outlive_the_process_and_streams_do_not() {
    let home = Home::new("lives");
    let mut shelf = home.shelf();
    shelf.open().unwrap();
    shelf.write(batch(Drawer::Answers(-3), 0..100)).unwrap();
    shelf.write(batch(Drawer::Answers(4), 0..100)).unwrap();
    shelf.write(batch(Drawer::Streams, 0..100)).unwrap();
    assert!(holds(&shelf, Drawer::Streams, 5));
    drop(shelf);
    let mut shelf = home.shelf();
    shelf.open().unwrap();
    assert!(holds(&shelf, Drawer::Answers(-3), 99) && holds(&shelf, Drawer::Answers(4), 99));
    assert!(!holds(&shelf, Drawer::Streams, 5));
    shelf.clear(Drawer::Answers(-3)).unwrap();
    assert!(!holds(&shelf, Drawer::Answers(-3), 99));
    shelf.write(batch(Drawer::Answers(-3), 7..8)).unwrap();
    drop(shelf);
    let mut shelf = home.shelf();
    shelf.open().unwrap();
    assert!(holds(&shelf, Drawer::Answers(-3), 7) && !holds(&shelf, Drawer::Answers(-3), 8));
    shelf.reset().unwrap();
    assert!(!holds(&shelf, Drawer::Answers(4), 99));
    shelf.write(batch(Drawer::Index, 0..1)).unwrap();
    assert!(holds(&shelf, Drawer::Index, 0));
}

#[test]
fn two_owners_never_share_files() {
    let home = Home::new("two");
    let (mut first, mut second) = (home.shelf(), home.shelf());
    first.write(batch(Drawer::Index, 0..1)).unwrap();
    second.open().unwrap();
    assert!(!holds(&second, Drawer::Index, 0), "it has files of its own");
    second.write(batch(Drawer::Index, 5..6)).unwrap();
    drop(first);
    let mut third = home.shelf();
    third.open().unwrap();
    assert!(holds(&third, Drawer::Index, 0), "the first slot is free again");
}

#[test]
fn damaged_files_are_told_from_a_disk_that_is_away() {
    let home = Home::new("damaged");
    let mut shelf = home.shelf();
    shelf.write(batch(Drawer::Answers(1), 0..1_000)).unwrap();
    drop(shelf);
    let answers = home.0.join("0").join(ANSWERS);
    for file in fs::read_dir(&answers).unwrap().map(|file| file.unwrap().path()) {
        if file.is_file() && file.file_name().is_some_and(|name| name != "lock") {
            fs::write(&file, b"no database wrote this").unwrap();
        }
    }
    let mut shelf = home.shelf();
    let error = shelf.open().unwrap_err();
    assert!(matches!(error, ShelfError::Damaged(_)), "{error:?}");
    shelf.reset().unwrap();
    shelf.open().unwrap();
    shelf.write(batch(Drawer::Index, 0..1)).unwrap();
}

#[test]
fn files_that_are_deleted_under_it_are_damage_and_never_an_empty_shelf() {
    let home = Home::new("deleted");
    let mut shelf = home.shelf();
    shelf.write(batch(Drawer::Streams, 0..10)).unwrap();
    shelf.streams.get_mut().store = None;
    fs::remove_dir_all(&home.0).unwrap();
    let error = shelf.get(Drawer::Streams, &[0, 0, 0, 1]).unwrap_err();
    assert!(matches!(error, ShelfError::Damaged(_)), "{error:?}");
}

#[test]
fn a_place_that_cannot_be_written_is_waited_for() {
    let home = Home::new("away");
    fs::write(&home.0, b"a file where a directory should be").unwrap();
    let mut shelf = home.shelf();
    let error = shelf.write(batch(Drawer::Index, 0..1)).unwrap_err();
    assert!(matches!(&error, ShelfError::Away(text) if text.contains("state directory /")));
    fs::remove_file(&home.0).unwrap();
    shelf.write(batch(Drawer::Index, 0..1)).unwrap();
    assert!(holds(&shelf, Drawer::Index, 0));
}
