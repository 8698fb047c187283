//! A steady load on every partition, and how long each command took to be answered.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::harness::await_some;
use crate::harness::commands::{command_with_id, create, deposit, new_id};
use crate::harness::judge;
use crate::harness::kafka::{Producer, own_partition};
use crate::harness::log::Answers;
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::harness::watch::{Arrival, Watch};

const ACCOUNTS_A_PARTITION: usize = 5;
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
const SHARED_WITHIN: Duration = Duration::from_secs(30);

/// A command that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) id: Uuid,
    pub(crate) partition: i32,
    pub(crate) at: Instant,
}

/// A load that is over, with everything answered.
pub(crate) struct Measured {
    pub(crate) sent: Vec<Sent>,
    first: HashMap<Uuid, Instant>,
    arrivals: Vec<Arrival>,
}

/// Some accounts of each partition.
pub(crate) fn accounts(partitions: i32) -> Vec<Vec<String>> {
    let mut accounts = vec![Vec::new(); usize::try_from(partitions).unwrap()];
    let mut number = 0;
    while accounts.iter().any(|all| all.len() < ACCOUNTS_A_PARTITION) {
        let name = format!("acc-{number}");
        let at = usize::try_from(own_partition(name.as_bytes(), partitions)).unwrap();
        if accounts[at].len() < ACCOUNTS_A_PARTITION {
            accounts[at].push(name);
        }
        number += 1;
    }
    accounts
}

/// Opens accounts of each partition, then sends each partition a command at that pace while
/// `fault` goes on, and waits until all is answered.
pub(crate) fn under_load<T>(
    namespace: &Namespace,
    pace: Duration,
    fault: impl FnOnce() -> T,
) -> (T, Measured) {
    let accounts = accounts(namespace.partitions);
    let topic = namespace.topic("commands");
    let producer = Producer::with(&namespace.stack, &[("enable.idempotence", "true")]);
    let watch = Watch::start(namespace);
    let sent = Mutex::new(Vec::new());
    let send = |account: &str, partition: i32, body: &serde_json::Value| {
        let id = new_id();
        let message = command_with_id(account, id, body);
        let at = Instant::now();
        producer.send_off(
            &topic,
            &crate::harness::kafka::Message { partition: Some(partition), ..message },
        );
        sent.lock().unwrap().push(Sent { id, partition, at });
    };
    // Openings ask the customers first. Afterwards only the handlers' own work is to be seen.
    let reactors = Serve::ready(namespace, "reactor");
    for (partition, all) in (0..).zip(&accounts) {
        for (user, account) in all.iter().enumerate() {
            send(
                account,
                partition,
                &create(&format!("user-{partition}-{user}"), "CHECKING", "100"),
            );
        }
    }
    await_answers(&watch, &sent.lock().unwrap());
    reactors.terminate();
    let stop = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0;
            let mut next = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                for (partition, all) in (0..).zip(&accounts) {
                    send(&all[turn % all.len()], partition, &deposit("0.25"));
                }
                turn += 1;
                next += pace;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(fault));
        stop.store(true, Ordering::Relaxed);
        outcome
    });
    let outcome = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let sent = sent.into_inner().unwrap();
    await_answers(&watch, &sent);
    let arrivals = watch.arrivals();
    let mut first = HashMap::new();
    for arrival in &arrivals {
        first.entry(arrival.id).or_insert(arrival.at);
    }
    (outcome, Measured { sent, first, arrivals })
}

fn await_answers(watch: &Watch, sent: &[Sent]) {
    await_some("an answer to every command", ANSWERED_WITHIN, || {
        let answers = watch.answers();
        match sent.iter().filter(|one| !answers.contains_key(&one.id)).count() {
            0 => Ok(()),
            missing => Err(format!("{missing} of {} wait", sent.len())),
        }
    });
}

impl Measured {
    /// The longest that a command to one of these partitions took, of those sent in that time.
    pub(crate) fn slowest(&self, partitions: &[i32], from: Instant, until: Instant) -> Duration {
        let sent = self.sent.iter().filter(|one| partitions.contains(&one.partition));
        let took = sent
            .filter(|one| one.at >= from && one.at < until)
            .map(|one| self.first[&one.id].saturating_duration_since(one.at));
        took.max().expect("commands in that time")
    }

    /// How long after that moment each of these partitions was answered again: the longest of them.
    pub(crate) fn answered_again(&self, partitions: &[i32], from: Instant) -> Duration {
        // What was committed just before may be seen just after.
        let settled = from + Duration::from_millis(100);
        let again = partitions.iter().map(|partition| {
            let own = |one: &&Arrival| one.partition == *partition && one.at > settled;
            self.arrivals.iter().find(own).expect("it is answered again").at - from
        });
        again.max().expect("partitions")
    }
}

/// The partitions whose commands a process handles.
pub(crate) fn partitions_of(serve: &Serve) -> Vec<i32> {
    // One that is starting has none.
    let metrics = serve.try_get("/metrics").unwrap_or_default();
    let running = metrics.lines().filter(|line| {
        line.starts_with("millrace_handler_running")
            && line.contains(".account.commands\"")
            && line.ends_with(" 1")
    });
    let partition = |line: &str| {
        let (_, rest) = line.split_once("partition=\"").expect("a partition");
        rest.split_once('"').expect("its end").0.parse().expect("its number")
    };
    let mut own: Vec<i32> = running.map(partition).collect();
    own.sort_unstable();
    own
}

/// Waits until the processes, each of which is ready, handle all partitions between them: who
/// handles which.
pub(crate) fn wait_handled(namespace: &Namespace, processes: &mut [Serve]) -> Vec<Vec<i32>> {
    processes.iter_mut().for_each(Serve::wait_ready);
    let processes: Vec<&Serve> = processes.iter().collect();
    wait_owned(namespace, &processes, |_| true)
}

/// Waits until the processes handle all partitions between them, and the last of them has some.
pub(crate) fn wait_shared(namespace: &Namespace, processes: &[&Serve]) {
    wait_owned(namespace, processes, |owned| owned.last().is_some_and(|some| !some.is_empty()));
}

fn wait_owned(
    namespace: &Namespace,
    processes: &[&Serve],
    are_right: impl Fn(&[Vec<i32>]) -> bool,
) -> Vec<Vec<i32>> {
    let total = usize::try_from(namespace.partitions).unwrap();
    await_some("partitions shared", SHARED_WITHIN, || {
        let owned: Vec<_> = processes.iter().map(|one| partitions_of(one)).collect();
        match are_right(&owned) && owned.iter().map(Vec::len).sum::<usize>() == total {
            true => Ok(owned),
            false => Err(format!("{owned:?}")),
        }
    })
}

/// The log and the answers tell the same story, each command once.
pub(crate) fn exactly_once(namespace: &Namespace, measured: &Measured) {
    let events = judge::log_is_sound(namespace);
    let answers = Answers::new(namespace).into_all();
    judge::results_match_log(&answers, &events);
    for one in &measured.sent {
        let all = &answers[&one.id.to_string()];
        assert_eq!(all.len(), 1, "{one:?}");
        assert!(all[0].is_accepted(), "{:?}", all[0]);
    }
    assert_eq!(events.len(), measured.sent.len(), "each command has its event");
}
