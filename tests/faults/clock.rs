//! The machine's clock jumps under a running handler: an event is never before the one before it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
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

/// Compiles the library that stands between a process and the clock.
fn library(directory: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/clock.c");
    let library = directory.join("clock.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(source);
    assert!(compiler.status().expect("a C compiler").success());
    library
}

#[test]
fn a_clock_that_jumps_never_puts_an_event_before_another() {
    let namespace = Namespace::as_declared();
    let library = library(&namespace.directory());
    let offset = namespace.directory().join("clock");
    let file = File::create(&offset).unwrap();
    let jump = |seconds: i64| file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    jump(0);
    let env = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("CLOCK_OFFSET_FILE", offset.to_str().unwrap()),
    ];
    let mut serve = Serve::start_with(&namespace, "handler", &env);
    serve.wait_ready();
    let ((), measured) = under_load(&namespace, PACE, || {
        for to in [0, -3_600, 3_600, 0] {
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
