//! The disks beside the handlers: some machines keep one, some come with an old copy, some lose it.

use millrace::engine::shelf::{Drawer, MemoryShelf, ShelfError};
use rand::RngExt;
use rand::rngs::StdRng;

/// How many machines there are. Each has a disk for each partition.
const MACHINES: usize = 3;

struct Disk {
    shelf: MemoryShelf,
    /// Two owners never share a disk: the lock is held until the process is gone.
    is_held: bool,
}

/// The disks of one partition.
#[derive(Default)]
pub(crate) struct Disks {
    disks: Vec<Disk>,
    /// Starts with a disk that holds answers.
    pub(crate) warm_starts: u32,
}

impl Disks {
    /// Gives a new owner a disk that nobody holds.
    pub(crate) fn take(&mut self, random: &mut StdRng) -> (usize, MemoryShelf) {
        let free: Vec<usize> =
            (0..self.disks.len()).filter(|index| !self.disks[*index].is_held).collect();
        let index = match free.len() {
            count if count > 0 && self.disks.len() >= MACHINES => {
                free[random.random_range(0..count)]
            }
            count => {
                // A new machine: empty, or with a copy of some other one's disk.
                let copied = (count > 0 && random.random_bool(0.5))
                    .then(|| self.disks[free[random.random_range(0..count)]].shelf.copied());
                let shelf = copied.unwrap_or_default();
                self.disks.push(Disk { shelf, is_held: false });
                self.disks.len() - 1
            }
        };
        let disk = &mut self.disks[index];
        disk.is_held = true;
        disk.shelf.set_trouble(None);
        if random.random_range(0..20) == 0 {
            disk.shelf = MemoryShelf::default();
        }
        self.warm_starts += u32::from(disk.shelf.len(Drawer::Index) > 0);
        (index, disk.shelf.clone())
    }

    pub(crate) fn give_back(&mut self, index: usize) {
        self.disks[index].is_held = false;
    }

    /// Fills a disk up, frees it again, or damages it.
    pub(crate) fn disturb(&mut self, index: usize, random: &mut StdRng) {
        let trouble = match random.random_range(0..6) {
            0..=2 => Some(ShelfError::Away("disk full".to_owned())),
            3 => Some(ShelfError::Damaged("simulated".to_owned())),
            _ => None,
        };
        self.disks[index].shelf.set_trouble(trouble);
    }

    pub(crate) fn mend(&mut self) {
        self.disks.iter().for_each(|disk| disk.shelf.set_trouble(None));
    }
}
