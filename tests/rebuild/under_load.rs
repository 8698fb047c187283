//! Everything runs, commands keep coming, and somebody reads: nobody sees a rebuild.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::judge;
use crate::harness::log::{await_process_managers, await_transfers, events};
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::harness::stores::{Postgres, analytics};
use crate::load::{Load, open};
use crate::probe::Probe;
use crate::{CLICKHOUSE, POSTGRES, rebuilt};

/// What a rebuild that went well says.
#[track_caller]
fn assert_switched(outcome: &Value, generation: i64, previous: i64, rows: &str) {
    assert_eq!(
        (&outcome["generation"], &outcome["previous"], &outcome["handed_over"]),
        (&json!(generation), &json!(previous), &json!(true)),
        "{outcome}"
    );
    assert!(outcome["switch_ms"].as_u64().unwrap() < 1_000, "{outcome}");
    assert!(outcome["compared"][rows].as_u64().unwrap() > 0, "{outcome}");
    println!("{outcome}");
}

/// The generations of tables that both stores hold.
fn tables(namespace: &Namespace, postgres: &Postgres) -> (Vec<String>, Vec<String>) {
    let like = namespace.schema("banking_g");
    let sql = format!(
        "SELECT nspname AS name FROM pg_namespace WHERE starts_with(nspname, '{like}') ORDER BY 1"
    );
    let schemas = postgres.query(&sql).unwrap();
    let sql = format!(
        "SELECT name FROM system.tables WHERE database = '{}'
         AND startsWith(name, 'banking_event_g') ORDER BY name",
        namespace.schema("millrace")
    );
    let name = |row: &crate::harness::stores::Row| row["name"].clone().unwrap();
    let schemas: Vec<String> = schemas.iter().map(name).collect();
    let short = |name: String| name.strip_prefix(&namespace.schema("")).unwrap().to_owned();
    let tables = analytics(namespace, &sql).unwrap().iter().map(name).collect();
    (schemas.into_iter().map(short).collect(), tables)
}

/// To another generation, back, and to a third.
fn there_and_back(namespace: &Namespace, projection: &str, rows: &str) {
    assert_switched(&rebuilt(namespace, &[projection]), 2, 1, rows);
    // What was in use is filled up before it is shown again.
    assert_switched(&rebuilt(namespace, &[projection, "--roll-back"]), 1, 2, rows);
    assert_switched(&rebuilt(namespace, &[projection]), 3, 1, rows);
    let dropped = rebuilt(namespace, &[projection, "--drop-old"]);
    assert_eq!(dropped["dropped"], json!([1, 2]), "{dropped}");
    assert_eq!(dropped["generation"], json!(3), "{dropped}");
}

#[test]
fn nobody_sees_a_rebuild_a_switch_or_a_roll_back() {
    let namespace = Namespace::new();
    let handler = Serve::ready(&namespace, "handler,reactor");
    let projections = Serve::ready(&namespace, "postgres,clickhouse");
    open(&namespace, 30);
    judge::read_models_equal_log(&namespace, &await_transfers(&namespace));
    let load = Load::start(&namespace);
    let probes = [Probe::postgres(&namespace), Probe::clickhouse(&namespace)];
    let started = Instant::now();

    // Side by side: one of each projection.
    std::thread::scope(|scope| {
        for (projection, rows) in [(POSTGRES, "postgres_rows"), (CLICKHOUSE, "clickhouse_rows")] {
            let namespace = &namespace;
            scope.spawn(move || there_and_back(namespace, projection, rows));
        }
    });

    let sent = load.end(&namespace);
    println!("{sent} commands in {:?}", started.elapsed());
    for probe in probes {
        let seen = probe.end();
        assert_eq!(seen.wrong, Vec::<String>::new());
        assert!(seen.count > 50, "{seen:?}");
        println!("{seen:?}");
    }
    let postgres = Postgres::connect(&namespace).unwrap();
    let left = (vec!["banking_g3".to_owned()], vec!["banking_event_g3".to_owned()]);
    assert_eq!(tables(&namespace, &postgres), left);
    let log = await_transfers(&namespace);
    await_process_managers(&namespace);
    assert_eq!(events(&namespace).len(), log.len());
    judge::read_models_equal_log(&namespace, &log);
    namespace.done(&["verify", "--all"]);

    // A reset by Kafka's own tool replays the generation in use.
    projections.terminate();
    for group in [POSTGRES, CLICKHOUSE].map(|name| namespace.group(name)) {
        let all = ["--all-topics", "--reset-offsets", "--to-earliest", "--execute"];
        namespace.kafka_tool(&[&["consumer-groups", "--group", &group], &all[..]].concat());
    }
    let projections = Serve::ready(&namespace, "postgres,clickhouse");
    judge::read_models_equal_log(&namespace, &log);
    let checkpoints = format!("{}.checkpoint", namespace.schema("millrace"));
    let sql = format!("SELECT DISTINCT generation, epoch FROM {checkpoints}");
    let epochs = postgres.query(&sql).unwrap();
    let of = |name: &str| epochs.iter().map(|row| row[name].clone().unwrap()).collect::<Vec<_>>();
    assert_eq!((of("generation"), of("epoch")), (vec!["3".to_owned()], vec!["1".to_owned()]));
    projections.terminate();
    handler.terminate();
}
