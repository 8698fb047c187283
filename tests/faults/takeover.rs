//! One of three processes goes: how long its partitions wait, and that nobody else's do.

use std::time::{Duration, Instant};

use crate::harness::await_some;
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::load::{Measured, exactly_once, partitions_of, under_load, wait_handled, wait_shared};

const PACE: Duration = Duration::from_millis(25);
/// The session of a killed member runs out after 6 s.
const KILLED_MAX: Duration = Duration::from_secs(8);
const STOPPED_MAX: Duration = Duration::from_millis(1_500);
/// What a partition may notice of another one's move.
const OTHERS_MAX: Duration = Duration::from_secs(2);
/// The load goes on undisturbed for this long before and after.
const CALM: Duration = Duration::from_secs(3);
/// How often something is measured.
const TRIES: usize = 3;
/// How often processes change until their partitions are shared as a test needs it.
const SHARE_TRIES: usize = 5;

/// What was measured of a process that went.
struct Going {
    at: Instant,
    until: Instant,
    own: Vec<i32>,
}

/// Three processes, the last of which handles some partitions but not all of them.
fn three(namespace: &Namespace) -> Vec<Serve> {
    let one = |_| Serve::start(namespace, "handler");
    let mut processes: Vec<_> = (0..3).map(one).collect();
    // The group shares out the partitions of all aggregates together: it may well give every one of
    // ours to one process. When that leaves, both others get some of them.
    for _ in 0..SHARE_TRIES {
        let owned = wait_handled(namespace, &mut processes);
        let total = owned.iter().map(Vec::len).sum();
        if let Some(at) = owned.iter().position(|own| !own.is_empty() && own.len() < total) {
            processes.swap(at, 2);
            return processes;
        }
        let at = owned.iter().position(|own| own.len() == total).unwrap();
        std::mem::replace(&mut processes[at], one(0)).terminate();
    }
    panic!("one process handles every partition, {SHARE_TRIES} times");
}

/// What a measurement found: how long until the partitions were answered again, and the slowest
/// command of all others.
#[derive(Debug)]
struct Took {
    again: Duration,
    others: Duration,
}

fn report(what: &str, namespace: &Namespace, going: &Going, measured: &Measured) -> Took {
    let others: Vec<i32> = (0..namespace.partitions).filter(|p| !going.own.contains(p)).collect();
    let again = measured.answered_again(&going.own, going.at);
    let before = going.at - Duration::from_millis(500);
    let own = measured.slowest(&going.own, before, going.until);
    let others = match others.is_empty() {
        true => Duration::ZERO,
        false => measured.slowest(&others, before, going.until),
    };
    println!(
        "  {what}: its partitions {:?} answered again after {again:.2?} (slowest command \
         {own:.2?}), slowest command of the others {others:.2?}",
        going.own,
    );
    exactly_once(namespace, measured);
    Took { again, others }
}

/// Measures until it was fast enough, a few times at most: the machine may be busy with other
/// things. What has to hold always was asserted each time.
fn within(limit: Duration, measure: impl Fn() -> Took) {
    for attempt in 1.. {
        let took = measure();
        if took.again < limit && took.others < OTHERS_MAX {
            return;
        }
        assert!(attempt < TRIES, "{took:?}: at most {limit:?}, and {OTHERS_MAX:?} for the others");
    }
}

/// One of three goes, and is watched for that long.
fn one_goes(what: &str, limit: Duration, watched: Duration, go: impl Fn(Serve)) {
    within(limit, || {
        let namespace = Namespace::as_declared();
        let mut processes = three(&namespace);
        let victim = processes.pop().unwrap();
        let (going, measured) = under_load(&namespace, PACE, || {
            std::thread::sleep(CALM);
            let (own, at) = (partitions_of(&victim), Instant::now());
            go(victim);
            std::thread::sleep(watched);
            Going { at, until: Instant::now(), own }
        });
        let took = report(what, &namespace, &going, &measured);
        processes.into_iter().for_each(Serve::terminate);
        took
    });
}

#[test]
fn a_killed_process_is_replaced_within_eight_seconds() {
    one_goes("kill -9", KILLED_MAX, KILLED_MAX + CALM, Serve::kill);
}

#[test]
fn a_stopped_process_is_replaced_at_once() {
    one_goes("SIGTERM", STOPPED_MAX, CALM, Serve::terminate);
}

#[test]
fn a_named_process_comes_back_without_a_rebalance() {
    within(STOPPED_MAX, || {
        let namespace = Namespace::as_declared();
        let one = |number: usize| {
            let name = format!("handler-{number}");
            let env = [("MILLRACE_HANDLER_INSTANCE_ID", name.as_str())];
            Serve::start_with(&namespace, "handler", &env)
        };
        let mut processes: Vec<_> = (0..3).map(one).collect();
        wait_handled(&namespace, &mut processes);
        let ((going, number), measured) = under_load(&namespace, PACE, || {
            std::thread::sleep(CALM);
            let owned: Vec<_> = processes.iter().map(partitions_of).collect();
            let number = (0..3).min_by_key(|number| match owned[*number].len() {
                0 => usize::MAX,
                some => some,
            });
            let number = number.unwrap();
            processes.remove(number).terminate();
            // The restart is what is measured, not how long somebody waits before it.
            let at = Instant::now();
            processes.insert(number, one(number));
            std::thread::sleep(CALM);
            (Going { at, until: Instant::now(), own: owned[number].clone() }, number)
        });
        let again = partitions_of(&processes[number]);
        assert_eq!(again, going.own, "it has its own partitions again, and no other");
        let took = report("restart under its name", &namespace, &going, &measured);
        processes.into_iter().for_each(Serve::terminate);
        took
    });
}

#[test]
fn of_two_processes_with_one_name_the_second_leaves() {
    let namespace = Namespace::as_declared();
    let env = [("MILLRACE_HANDLER_INSTANCE_ID", "twin")];
    let first = Serve::start_with(&namespace, "handler", &env);
    wait_shared(&namespace, &[&first]);
    // Whoever has been there for a while stays.
    std::thread::sleep(Duration::from_secs(31));
    let (mut second, measured) = under_load(&namespace, PACE, || {
        let mut second = Serve::start_with(&namespace, "handler", &env);
        let started = Instant::now();
        let (status, log) = await_some("the second to leave", Duration::from_secs(30), || {
            second.ended().ok_or_else(|| "it is still there".to_owned())
        });
        println!("  the second left after {:.2?}", started.elapsed());
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("another process is a member of"), "{log}");
        assert!(log.contains("MILLRACE_HANDLER_INSTANCE_ID of its own"), "{log}");
        std::thread::sleep(CALM);
        second
    });
    assert!(second.ended().is_some());
    wait_shared(&namespace, &[&first]);
    exactly_once(&namespace, &measured);
    first.terminate();
}
