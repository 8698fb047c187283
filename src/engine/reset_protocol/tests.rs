//! Every case of the table, and some that hide between its lines.

use super::*;

const TOPIC: Uuid = Uuid::from_u128(7);

fn place(epoch: u32, epoch_start: i64, next_offset: i64) -> Place {
    Place { epoch, epoch_start, next_offset }
}

fn ours(place: Place) -> Option<Committed> {
    let metadata = CommitMetadata { cluster_id: "cluster".to_owned(), place };
    Some(Committed { offset: place.next_offset, metadata: metadata.encode() })
}

fn foreign(offset: i64) -> Option<Committed> {
    Some(Committed { offset, metadata: String::new() })
}

/// A log from 10 to 100.
fn position(held: Option<Place>, committed: Option<Committed>) -> Position {
    Position {
        cluster_id: "cluster".to_owned(),
        topic_id: TOPIC,
        log_start: 10,
        log_end: 100,
        committed,
        held: Held { topic_id: held.map(|_| TOPIC), place: held, ..Held::default() },
    }
}

fn stays(place: Place, stamp: bool) -> Decision {
    Decision::Continue { place, stamp, note: Note::Resumed }
}

fn fresh(epoch: u32, note: Note) -> Decision {
    Decision::Reset { expected: None, place: place(epoch, 10, 10), clear: true, note }
}

fn rewound(held: Place, to: i64, clear: bool) -> Decision {
    Decision::Reset {
        expected: Some(held),
        place: place(held.epoch + 1, to, to),
        clear,
        note: Note::Rewound { from: held.next_offset, to },
    }
}

#[test]
fn metadata_is_read_back_and_anything_else_is_foreign() {
    let metadata = CommitMetadata {
        cluster_id: "4L6g3nShT-eMCtK--X86sw".to_owned(),
        place: place(3, 200, 912),
    };
    assert_eq!(CommitMetadata::parse(&metadata.encode()), Some(metadata.clone()));
    for text in [
        "",
        "millrace1",
        "millrace1 c 1 2",
        "millrace1 c 1 2 3 4",
        "millrace1 c x 2 3",
        "aiven 1 2 3",
        "millrace2 c 1 2 3",
    ] {
        assert_eq!(CommitMetadata::parse(text), None, "{text:?}");
    }
}

#[test]
fn without_anything_in_the_store() {
    let ignored = Note::ForwardIgnored { stays: 10, asked: 50 };
    let cases = [
        ("first start", None, None, fresh(0, Note::Fresh)),
        ("wiped", ours(place(2, 30, 60)), None, fresh(2, Note::Wiped)),
        ("ours, but nothing was ever read", ours(place(0, 10, 10)), None, fresh(0, Note::Fresh)),
        ("foreign at the start", foreign(10), None, fresh(0, Note::Fresh)),
        ("foreign before the start", foreign(0), None, fresh(0, Note::Fresh)),
        ("foreign ahead", foreign(50), None, Decision::LookBetween { from: 10, to: 50 }),
        ("foreign beyond the end", foreign(500), None, Decision::LookBetween { from: 10, to: 100 }),
        ("foreign ahead over events", foreign(50), Some(true), fresh(0, ignored)),
        ("foreign ahead over a marker", foreign(50), Some(false), fresh(0, Note::Fresh)),
    ];
    for (name, committed, between, expected) in cases {
        let decision = decide(&position(None, committed), between);
        assert_eq!(decision, expected, "{name}");
    }
}

/// Where the rows of a partition were dropped beside its parked events, nothing is skipped.
#[test]
fn parked_events_without_any_row_are_read_again_from_the_start_in_a_later_epoch() {
    for (committed, epoch) in [(ours(place(2, 30, 60)), 3), (ours(place(5, 30, 60)), 5), (None, 3)]
    {
        let mut position = position(None, committed);
        position.held.parked = [("a".to_owned(), 40)].into();
        position.held.parked_epoch = Some(2);
        let Decision::Reset { place: found, .. } = decide(&position, None) else { panic!() };
        assert_eq!(found, place(epoch, 10, 10));
    }
}

#[test]
fn with_a_place_in_the_store() {
    let held = place(1, 20, 60);
    let forward = |asked| Decision::Continue {
        place: held,
        stamp: true,
        note: Note::ForwardIgnored { stays: 60, asked },
    };
    let copied = Some(Committed { offset: 20, ..ours(held).unwrap() });
    let other_cluster = Some(Committed {
        offset: 60,
        metadata: CommitMetadata { cluster_id: "other".to_owned(), place: held }.encode(),
    });
    let cases = [
        ("ours and equal", ours(held), None, stays(held, false)),
        ("ours behind: lost commit", ours(place(1, 20, 40)), None, stays(held, true)),
        ("ours ahead: restored backup", ours(place(1, 20, 90)), None, stays(held, true)),
        ("ours of an older epoch", ours(place(0, 10, 60)), None, stays(held, true)),
        ("commit deleted or expired", None, None, stays(held, true)),
        ("blank and equal", foreign(60), None, stays(held, true)),
        ("back to the start", foreign(10), None, rewound(held, 10, true)),
        ("back before the start", foreign(0), None, rewound(held, 10, true)),
        ("back to the middle", foreign(30), None, rewound(held, 30, false)),
        ("back by one", foreign(59), None, rewound(held, 59, false)),
        ("our metadata at a foreign offset", copied, None, rewound(held, 20, false)),
        ("another cluster's metadata", other_cluster, None, stays(held, true)),
        ("ahead", foreign(70), None, Decision::LookBetween { from: 60, to: 70 }),
        ("far ahead", foreign(700), None, Decision::LookBetween { from: 60, to: 100 }),
        ("ahead over events", foreign(70), Some(true), forward(70)),
        ("ahead over a marker", foreign(61), Some(false), stays(held, true)),
    ];
    for (name, committed, between, expected) in cases {
        let decision = decide(&position(Some(held), committed), between);
        assert_eq!(decision, expected, "{name}");
    }
}

#[test]
fn where_the_rows_are_the_checkpoint() {
    // (place of the newest epoch's rows, end of all rows, commit, expected place)
    let cases = [
        (
            "an epoch without rows begins at its start",
            (place(0, 10, 90), 90, place(1, 40, 40)),
            place(1, 40, 40),
        ),
        (
            "a backup from before the epoch: where the rows end",
            (place(0, 10, 30), 30, place(1, 40, 80)),
            place(1, 40, 30),
        ),
        (
            "the backup holds some rows of the epoch",
            (place(1, 40, 50), 90, place(1, 40, 80)),
            place(1, 40, 50),
        ),
        (
            "only Kafka knows where the epoch began: its first record may come later",
            (place(1, 43, 50), 90, place(1, 40, 50)),
            place(1, 40, 50),
        ),
        (
            "the rows are of a newer epoch than the commit",
            (place(2, 20, 50), 90, place(1, 40, 80)),
            place(2, 20, 50),
        ),
    ];
    for (name, (held, rows_end, committed), expected) in cases {
        let mut position = position(Some(held), ours(committed));
        position.held.rows_end = Some(rows_end);
        assert_eq!(decide(&position, None), stays(expected, committed != expected), "{name}");
    }
}

#[test]
fn a_second_reset_before_the_first_rows_of_an_epoch_begins_it_again() {
    let held = place(0, 10, 90);
    let mut position = position(Some(held), foreign(20));
    position.held.rows_end = Some(90);
    assert_eq!(decide(&position, None), rewound(held, 20, false));
}

#[test]
fn a_log_that_is_not_the_one_that_was_read_is_refused() {
    let held = place(0, 10, 60);
    let mut recreated = position(Some(held), ours(held));
    recreated.topic_id = Uuid::from_u128(8);
    let refusal = Refusal::TopicRecreated { was: TOPIC, is: Uuid::from_u128(8) };
    assert_eq!(decide(&recreated, None), Decision::Refuse(refusal));

    let mut shorter = position(Some(held), ours(held));
    shorter.log_end = 59;
    let refusal = Refusal::BeyondEnd { next_offset: 60, log_end: 59 };
    assert_eq!(decide(&shorter, None), Decision::Refuse(refusal));

    let mut truncated = position(Some(held), ours(held));
    truncated.log_start = 61;
    let refusal = Refusal::Truncated { next_offset: 60, log_start: 61 };
    assert_eq!(decide(&truncated, None), Decision::Refuse(refusal));
}
