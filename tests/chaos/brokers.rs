//! What happens to the brokers and the registry during a run.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::harness::namespace::Namespace;
use crate::harness::watch::{Arrival, longest_gap};
use crate::harness::{await_some, services};
use crate::run::Scene;

/// Longer than the producers' transaction timeout of 15 s: the broker aborts what was open.
const PAUSE: Duration = Duration::from_secs(18);
/// The registry stays down for this long.
const REGISTRY_DOWN: Duration = Duration::from_secs(8);
/// The load is undisturbed by brokers for this long between two faults.
const BETWEEN: Duration = Duration::from_secs(8);
/// How long brokers may take to say who leads what.
const ASKED_WITHIN: Duration = Duration::from_secs(10);
/// The last killed instance's session has run out by then.
const QUIET_BEFORE: Duration = Duration::from_secs(8);

/// The only broker: killed and started again, held still past the transaction timeout; and the
/// registry gone. In turns until the time is over.
pub(crate) fn one_broker(scene: &Scene<'_>, random: &mut StdRng) -> Vec<String> {
    let mut lines = Vec::new();
    let mut note = |what: &str, from: Instant| {
        let until = Instant::now();
        wait_for_results(scene);
        let gap = longest_gap(&scene.watch.arrivals(), from, Instant::now(), |_| true);
        let lasted = until - from;
        lines.push(format!("{what} for {lasted:.1?}: longest time without a result {gap:.1?}"));
    };
    let mut turn = 0;
    while turn < 3 || Instant::now() < scene.until {
        std::thread::sleep(BETWEEN + Duration::from_millis(random.random_range(0..2_000)));
        let from = Instant::now();
        match turn % 3 {
            0 => {
                drop(services::kill_for_a_while("kafka"));
                note("broker killed and started again", from);
            }
            1 => {
                let down = services::kill_for_a_while("registry");
                std::thread::sleep(REGISTRY_DOWN);
                drop(down);
                note("registry killed and started again", from);
            }
            _ => {
                let paused = services::pause("kafka");
                std::thread::sleep(PAUSE);
                drop(paused);
                note("broker paused", from);
            }
        }
        turn += 1;
    }
    lines
}

/// The work goes on: results come again.
fn wait_for_results(scene: &Scene<'_>) {
    let before = scene.watch.count();
    await_some("results after a fault", Duration::from_secs(60), || {
        let now = scene.watch.count();
        if now > before + 100 { Ok(()) } else { Err(format!("{} results", now - before)) }
    });
}

/// How long the work may stand still when one of three brokers dies: all of it, one partition.
const GOES_ON_WITHIN: Duration = Duration::from_secs(15);
const EVERYWHERE_WITHIN: Duration = Duration::from_secs(20);
/// How long a broker that is back may take to have every record again.
const IN_SYNC_WITHIN: Duration = Duration::from_secs(60);
/// Instances are killed, too, for this long between two brokers.
const KILLS_BETWEEN: Duration = Duration::from_secs(8);
const SERVICES: [&str; 3] = ["kafka", "kafka2", "kafka3"];

/// Three brokers: one at a time is killed and comes back. First the one that coordinates a
/// partition's transactions, then the one that coordinates the group, then any.
pub(crate) fn three_brokers(scene: &Scene<'_>, random: &mut StdRng) -> Vec<String> {
    let cluster = Cluster::of(scene);
    let mut lines = Vec::new();
    let mut turn = 0;
    while turn < 3 || Instant::now() < scene.until {
        std::thread::sleep(KILLS_BETWEEN);
        // Nothing else dies meanwhile, so that it is the broker's death that is measured.
        scene.quiet.store(true, Ordering::Relaxed);
        cluster.wait_in_sync();
        wait_for_results(scene);
        std::thread::sleep(QUIET_BEFORE);
        let (who, node) = match turn % 3 {
            0 => ("the transactions' coordinator", cluster.coordinator_of_transactions(random)),
            1 => ("the group's coordinator", cluster.coordinator_of_group()),
            _ => ("any", random.random_range(1..=3)),
        };
        let service = SERVICES[usize::try_from(node - 1).unwrap()];
        let from = Instant::now();
        let killed = services::kill_for_a_while(service);
        std::thread::sleep(EVERYWHERE_WITHIN + Duration::from_secs(3));
        let gap = longest_gap(&scene.watch.arrivals(), from, Instant::now(), |_| true);
        let slowest = (0..scene.namespace.partitions)
            .map(|partition| {
                let own = |arrival: &Arrival| arrival.partition == partition;
                longest_gap(&scene.watch.arrivals(), from, Instant::now(), own)
            })
            .max();
        lines.push(format!(
            "{service} killed ({who}): longest time without a result {gap:.1?}, of one partition \
             {:.1?}",
            slowest.unwrap()
        ));
        drop(killed);
        assert!(gap < GOES_ON_WITHIN && slowest.unwrap() < EVERYWHERE_WITHIN, "{lines:#?}");
        scene.quiet.store(false, Ordering::Relaxed);
        turn += 1;
    }
    cluster.wait_in_sync();
    lines
}

/// Who leads and coordinates what.
struct Cluster<'n> {
    namespace: &'n Namespace,
    client: BaseConsumer,
}

impl<'n> Cluster<'n> {
    fn of(scene: &Scene<'n>) -> Self {
        let client: BaseConsumer = scene.namespace.stack.kafka().create().unwrap();
        let metadata = client.fetch_metadata(None, ASKED_WITHIN).unwrap();
        let count = metadata.brokers().len();
        assert_eq!(count, 3, "three brokers: `ops/stack up --brokers 3`");
        Self { namespace: scene.namespace, client }
    }

    /// Every replica of every partition has everything.
    fn wait_in_sync(&self) {
        await_some("all replicas in sync", IN_SYNC_WITHIN, || {
            let metadata = self.client.fetch_metadata(None, ASKED_WITHIN);
            let metadata = metadata.map_err(|error| error.to_string())?;
            let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            match partitions.filter(|one| one.isr().len() < one.replicas().len()).count() {
                0 if metadata.brokers().len() == 3 => Ok(()),
                behind => Err(format!("{behind} partitions are not")),
            }
        });
    }

    fn coordinator_of_transactions(&self, random: &mut StdRng) -> i32 {
        let partition = random.random_range(0..self.namespace.partitions);
        let (group, topic) = (self.namespace.group("handler.banking"), "commands");
        let id = format!("{group}.{}.{partition}", self.namespace.topic(topic));
        self.leader_for("__transaction_state", &id)
    }

    fn coordinator_of_group(&self) -> i32 {
        self.leader_for("__consumer_offsets", &self.namespace.group("handler.banking"))
    }

    /// The leader of the partition that holds a name: Kafka hashes it as Java does.
    fn leader_for(&self, topic: &str, name: &str) -> i32 {
        let hash = name
            .bytes()
            .fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)));
        let metadata = self.client.fetch_metadata(Some(topic), ASKED_WITHIN).unwrap();
        let partitions = metadata.topics()[0].partitions();
        let at = (hash & i32::MAX) % i32::try_from(partitions.len()).unwrap();
        partitions.iter().find(|one| one.id() == at).unwrap().leader()
    }
}
