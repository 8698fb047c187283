//! The machine's clock jumps under a running handler: an event is never before the one before it.

use std::path::PathBuf;
use std::time::Duration;

use crate::harness::fold::micros;
use crate::harness::judge;
use crate::harness::log::events_of;
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::load::{accounts, exactly_once, under_load};

const PACE: Duration = Duration::from_millis(50);
const BETWEEN: Duration = Duration::from_secs(3);
const HOUR_MICROS: i64 = 3_600_000_000;

/// The library that stands between a process and the clock (Debian's `faketime`).
fn library() -> PathBuf {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let path = PathBuf::from(format!("/usr/lib/{triple}/faketime/libfaketimeMT.so.1"));
    assert!(path.exists(), "{} is not there: apt-get install faketime", path.display());
    path
}

#[test]
fn a_clock_that_jumps_never_puts_an_event_before_another() {
    let namespace = Namespace::as_declared();
    let offset = namespace.directory().join("clock");
    // Moved in one step: a process that read half a line would be in another year.
    let jump = |to: &str| {
        let new = offset.with_extension("new");
        std::fs::write(&new, format!("{to}\n")).unwrap();
        std::fs::rename(&new, &offset).unwrap();
    };
    jump("+0");
    let library = library();
    let env = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let mut serve = Serve::start_with(&namespace, "handler", &env);
    serve.wait_ready();
    let ((), measured) = under_load(&namespace, PACE, || {
        for to in ["+0", "-3600", "+3600", "+0"] {
            jump(to);
            std::thread::sleep(BETWEEN);
        }
    });
    exactly_once(&namespace, &measured);
    let events = judge::log_is_sound(&namespace);
    let (mut still, mut ahead) = (0, 0);
    for account in accounts(namespace.partitions).concat() {
        let own = events_of(&events, &account);
        for pair in own.windows(2) {
            let step = micros(pair[1]) - micros(pair[0]);
            assert!(step >= 0, "{:?} before {:?}", pair[1], pair[0]);
            still += usize::from(step == 0);
            ahead += usize::from(step > HOUR_MICROS / 2);
        }
    }
    println!(
        "  clock an hour back, two forward, one back: {} events, {still} at the time of the one \
         before, {ahead} an hour and more ahead of it",
        events.len()
    );
    assert!(still > 0 && ahead > 0, "the clock did jump");
    serve.terminate();
}
