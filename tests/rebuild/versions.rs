//! Tables of another version: refused at the start, with the command that helps, which does; and
//! what was parked in the generation before is no longer, where it can be applied.

use std::time::Duration;

use serde_json::json;

use crate::harness::await_some;
use crate::harness::judge;
use crate::harness::log::{await_process_managers, await_transfers};
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::harness::stores::{Postgres, Row, analytics, execute};
use crate::load::open;
use crate::{CLICKHOUSE, POSTGRES, rebuilt, refused};

const WITHIN: Duration = Duration::from_secs(60);

/// A start that is refused: its words.
#[track_caller]
fn refused_start(namespace: &Namespace, role: &str) -> String {
    let mut serve = Serve::start(namespace, role);
    let (status, log) =
        await_some("a refused start", WITHIN, || serve.ended().ok_or_else(|| "it runs".to_owned()));
    assert_eq!(status.code(), Some(1), "{log}");
    log
}

#[test]
fn tables_of_another_version_are_refused_and_rebuilt() {
    let namespace = Namespace::new();
    let handler = Serve::ready(&namespace, "handler,reactor");
    let projections = Serve::ready(&namespace, "postgres,clickhouse");
    let postgres = Postgres::connect(&namespace).unwrap();
    let (millrace, banking) = (namespace.schema("millrace"), namespace.schema("banking"));
    // A rule of the generation in use that the next one does not have.
    let rule = "ADD CONSTRAINT no_acc_7 CHECK";
    let first = namespace.schema("banking_g1");
    let refuse = format!("ALTER TABLE {first}.account_summary {rule} (account_id <> 'acc-7')");
    postgres.query(&refuse).unwrap();
    let refuse = format!("ALTER TABLE {millrace}.banking_event_g1 {rule} aggregate_id != 'acc-7'");
    execute(&namespace, &refuse).unwrap();
    open(&namespace, 10);
    let log = await_transfers(&namespace);
    await_process_managers(&namespace);
    let list = ["dead-letters", "list", "--json"];
    await_some("parked events in both stores", WITHIN, || {
        let parked = namespace.json(&list[..2]);
        let of = |name: &str| parked.iter().filter(|one| one["projection"] == name).count();
        match (of(POSTGRES), of(CLICKHOUSE)) {
            (0, _) | (_, 0) => Err(format!("{}", parked.len())),
            _ => Ok(()),
        }
    });
    projections.terminate();

    // As an older version's code would have made them: other tables, other columns.
    let older = [
        format!("UPDATE {millrace}.projection SET version = 0, tables_hash = 'older'"),
        format!("ALTER TABLE {first}.account_transaction DROP COLUMN description CASCADE"),
        format!("DROP VIEW {banking}.account_summary"),
        format!(
            "CREATE VIEW {banking}.account_summary AS
             SELECT account_id AS id, version FROM {first}.account_summary"
        ),
        format!("GRANT SELECT ON {banking}.account_summary TO PUBLIC"),
        format!("COMMENT ON SCHEMA {banking} IS 'older'"),
    ];
    postgres.query(&older.join("; ")).unwrap();
    let older = "MODIFY COMMENT 'version 0 tables older'";
    execute(&namespace, &format!("ALTER TABLE {millrace}.banking_event_g1 {older}")).unwrap();
    for (role, projection) in [("postgres", POSTGRES), ("clickhouse", CLICKHOUSE)] {
        let words = refused_start(&namespace, role);
        assert!(words.contains(&format!("`millrace rebuild {projection}`")), "{words}");
    }

    for projection in [POSTGRES, CLICKHOUSE] {
        let outcome = rebuilt(&namespace, &[projection]);
        assert_eq!(outcome["generation"], json!(2), "{outcome}");
        assert_eq!(outcome["handed_over"], json!(null), "nothing runs: {outcome}");
        assert_eq!(outcome["parked"], json!([]), "{outcome}");
        let words = refused(&namespace, &[projection, "--roll-back"], 1);
        assert!(words.contains("another version of the code"), "{words}");
    }
    let projections = Serve::ready(&namespace, "postgres,clickhouse");
    judge::read_models_equal_log(&namespace, &log);
    assert_eq!(namespace.json(&list[..2]), Vec::<serde_json::Value>::new(), "none is parked");
    let grants = format!(
        "SELECT count(*) AS n FROM information_schema.table_privileges
         WHERE table_schema = '{banking}' AND table_name = 'account_summary'
         AND grantee = 'PUBLIC'"
    );
    let count = |rows: Vec<Row>| rows[0]["n"].clone();
    assert_eq!(count(postgres.query(&grants).unwrap()).as_deref(), Some("1"));
    for projection in [POSTGRES, CLICKHOUSE] {
        let dropped = rebuilt(&namespace, &[projection, "--drop-old"]);
        assert_eq!(dropped["dropped"], json!([1]), "{dropped}");
    }
    let parked = format!("SELECT count() AS n FROM {millrace}.failed_event FINAL");
    assert_eq!(count(analytics(&namespace, &parked).unwrap()).as_deref(), Some("0"));
    judge::read_models_equal_log(&namespace, &log);
    projections.terminate();
    handler.terminate();
}
