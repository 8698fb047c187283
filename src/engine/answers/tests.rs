//! Many lives of one partition's answers.

use super::*;
use crate::engine::shelf::MemoryShelf;
use crate::kernel::result::{CommandResult, Outcome};
use crate::kernel::stream::StreamHash;

const WINDOW: i64 = 1_000;
const TOPIC: Uuid = Uuid::from_u128(7);

fn key(id: u64) -> CommandKey {
    CommandKey::new(StreamHash(0), Uuid::from_u128(u128::from(id)), false)
}

fn answer(id: u64, second: i64) -> Answer {
    Answer::of(&CommandResult {
        command_id: Uuid::from_u128(u128::from(id)),
        aggregate_id: "a".to_owned(),
        outcome: Outcome::Accepted,
        code: None,
        message: None,
        retryable: false,
        details: Vec::new(),
        content_hash: [1; 32],
        first_sequence: Some(id),
        last_sequence: Some(id),
        version: id,
        decided_at: at(second),
        duplicate: false,
        consistency_token: String::new(),
    })
    .unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::default().plus_seconds(second)
}

fn noted(id: u64, second: i64) -> Noted {
    let bytes = id.to_be_bytes();
    Noted::new(i64::try_from(id).unwrap(), Some(&bytes), Some(&bytes), at(second))
}

fn take(answers: &mut Answers, ids: std::ops::Range<u64>, second: i64) {
    for id in ids {
        answers.insert(key(id), answer(id, second), at(second));
        answers.note(Some(noted(id, second)), 1);
    }
}

fn opened(limit: usize, shelf: &mut MemoryShelf) -> Answers {
    let mut answers = Answers::new(limit, WINDOW);
    answers.open(TOPIC, shelf).unwrap();
    answers
}

/// Decided long ago, committed just now, and forgotten by then: the second answer is the valid one.
#[test]
fn the_second_first_answer_of_an_id_outlives_the_first() {
    let mut shelf = MemoryShelf::default();
    let mut answers = opened(10, &mut shelf);
    answers.insert(key(1), answer(1, 0), at(0));
    answers.insert(key(1), answer(2, WINDOW + 5), at(WINDOW + 5));
    answers.relieve(at(WINDOW + 10), &mut shelf).unwrap();
    assert_eq!(answers.recent(key(1)), Some(&answer(2, WINDOW + 5)));
    take(&mut answers, 10..30, WINDOW + 11);
    answers.relieve(at(WINDOW + 12), &mut shelf).unwrap();
    assert_eq!(answers.recent(key(1)), None);
    let shelved = answers.shelved(key(1), &shelf).unwrap();
    assert_eq!(shelved, Some(answer(2, WINDOW + 5)));
}

#[test]
fn memory_is_bounded_and_nothing_is_forgotten() {
    let mut shelf = MemoryShelf::default();
    let mut answers = opened(10, &mut shelf);
    for round in 0..100 {
        take(&mut answers, round * 7..(round + 1) * 7, 1);
        answers.relieve(at(1), &mut shelf).unwrap();
        assert!(answers.len().0 <= 12, "{:?}", answers.len());
    }
    assert_eq!(answers.len().0 as u64 + answers.len().1, 700);
    for id in 0..700 {
        let found = answers.recent(key(id)).cloned();
        let found = found.or_else(|| answers.shelved(key(id), &shelf).unwrap());
        assert_eq!(found, Some(answer(id, 1)), "{id}");
    }
    assert_eq!(answers.shelved(key(700), &shelf).unwrap(), None);
}

#[test]
fn the_index_never_goes_further_than_its_answers() {
    let mut shelf = MemoryShelf::default();
    let mut answers = opened(10, &mut shelf);
    for end in 1..200 {
        take(&mut answers, end - 1..end, 1);
        answers.relieve(at(1), &mut shelf).unwrap();
        // A crash at this point: what the index promises must be on the shelf.
        let mut later = shelf.copied();
        let mut next = Answers::new(10, WINDOW);
        let Some(noted) = next.open(TOPIC, &mut later).unwrap() else { continue };
        for id in 0..=u64::try_from(noted.offset).unwrap() {
            assert!(next.shelved(key(id), &later).unwrap().is_some(), "{id} of {noted:?}");
        }
        assert!(end - u64::try_from(noted.offset).unwrap() <= 16, "{end}: {noted:?}");
    }
}

#[test]
fn a_place_that_nobody_knows_keeps_the_index_back() {
    let mut shelf = MemoryShelf::default();
    let mut answers = opened(4, &mut shelf);
    for id in 0..50 {
        answers.insert(key(id), answer(id, 1), at(1));
        answers.note(None, 1);
    }
    answers.relieve(at(1), &mut shelf).unwrap();
    assert_eq!(answers.noted(), None);
    let mut next = Answers::new(4, WINDOW);
    assert_eq!(next.open(TOPIC, &mut shelf).unwrap(), None);
    assert!(shelf.is_empty(), "of no use without a place");
}

#[test]
fn what_is_older_than_the_window_goes_drawer_by_drawer() {
    let mut shelf = MemoryShelf::default();
    let mut answers = opened(4, &mut shelf);
    for span in 0..4 {
        let second = span * WINDOW / 2 + 1;
        let first = u64::try_from(span).unwrap() * 10;
        take(&mut answers, first..first + 10, second);
        answers.relieve(at(second), &mut shelf).unwrap();
    }
    assert_eq!(shelf.len(Drawer::Answers(0)), 0, "its span is past");
    assert!(answers.shelved(key(1), &shelf).unwrap().is_none());
    assert!(answers.shelved(key(11), &shelf).unwrap().is_some(), "within the window");
    answers.relieve(at(5 * WINDOW), &mut shelf).unwrap();
    assert_eq!(answers.len().0, 0, "nor does memory keep it");
    for _ in 0..4 {
        answers.relieve(at(5 * WINDOW), &mut shelf).unwrap();
    }
    assert_eq!(answers.len(), (0, 0));
}

#[test]
fn a_shelf_of_another_topic_form_or_time_is_emptied() {
    let filled = || {
        let mut shelf = MemoryShelf::default();
        let mut answers = opened(4, &mut shelf);
        take(&mut answers, 0..40, 1);
        answers.relieve(at(1), &mut shelf).unwrap();
        assert!(answers.noted().is_some());
        shelf
    };
    let open = |topic, now, mut shelf: MemoryShelf| {
        let mut answers = Answers::new(4, WINDOW);
        answers.open(topic, &mut shelf).unwrap();
        answers.forget_stale(now, &mut shelf).unwrap();
        (answers.noted().is_some(), shelf.is_empty())
    };
    assert_eq!(open(TOPIC, at(2), filled()), (true, false));
    assert_eq!(open(Uuid::from_u128(8), at(2), filled()), (false, true), "another topic");
    assert_eq!(open(TOPIC, at(WINDOW + 2), filled()), (false, true), "before the window");
    let mut other = filled();
    let mut bytes = other.get(Drawer::Index, INDEX_KEY).unwrap().unwrap();
    bytes[0] = FORM + 1;
    other.write(Batch(vec![(Drawer::Index, INDEX_KEY.to_vec(), bytes.clone())])).unwrap();
    assert_eq!(open(TOPIC, at(2), other), (false, true), "another form");
    let mut cut = filled();
    bytes[0] = FORM;
    bytes.pop();
    cut.write(Batch(vec![(Drawer::Index, INDEX_KEY.to_vec(), bytes)])).unwrap();
    assert_eq!(open(TOPIC, at(2), cut), (false, true), "cut off");
}

#[test]
fn a_shelf_that_is_away_loses_nothing() {
    let mut shelf = MemoryShelf::default();
    let mut answers = opened(4, &mut shelf);
    take(&mut answers, 0..40, 1);
    shelf.set_trouble(Some(ShelfError::Away("disk full".to_owned())));
    assert!(answers.relieve(at(1), &mut shelf).is_err());
    assert!((0..40).all(|id| answers.recent(key(id)).is_some()));
    shelf.set_trouble(None);
    answers.relieve(at(1), &mut shelf).unwrap();
    assert_eq!(answers.len(), (4, 36));
}

#[test]
fn repeats_alone_take_the_index_further() {
    let mut shelf = MemoryShelf::default();
    let mut answers = opened(10, &mut shelf);
    take(&mut answers, 0..5, 1);
    answers.note(Some(noted(900_000, 1)), 900_000);
    answers.relieve(at(1), &mut shelf).unwrap();
    assert_eq!(answers.noted().map(|noted| noted.offset), Some(900_000));
    assert_eq!(answers.len(), (0, 5));
}
