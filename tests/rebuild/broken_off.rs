//! A rebuild that is killed goes on where it was; two at once are one too many; what is not what
//! the log says is not put in use.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::harness::await_some;
use crate::harness::judge;
use crate::harness::log::{await_process_managers, await_transfers};
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::harness::stores::{Postgres, analytics, execute};
use crate::load::open;
use crate::{CLICKHOUSE, POSTGRES, rebuilt, refused};

const WITHIN: Duration = Duration::from_secs(30);

/// A number that Postgres answers with.
fn number(postgres: &Postgres, sql: &str) -> Result<u64, String> {
    let rows = postgres.query(&format!("SELECT coalesce(({sql}), 0) AS n"))?;
    rows[0]["n"].as_deref().unwrap_or_default().parse().map_err(|_| "no number".to_owned())
}

fn start(namespace: &Namespace, projection: &str) -> Child {
    let mut command = namespace.command(&["rebuild", projection]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_killed_rebuild_goes_on_and_a_wrong_one_is_not_put_in_use() {
    let namespace = Namespace::new();
    let handler = Serve::ready(&namespace, "handler,reactor");
    let projections = Serve::ready(&namespace, "postgres,clickhouse");
    open(&namespace, 20);
    let log = await_transfers(&namespace);
    await_process_managers(&namespace);
    judge::read_models_equal_log(&namespace, &log);
    let postgres = Postgres::connect(&namespace).unwrap();
    let guard = Postgres::connect(&namespace).unwrap();
    let (millrace, next) = (namespace.schema("millrace"), namespace.schema("banking_g2"));

    // Transfers cannot be written, so it stays half built.
    let child = start(&namespace, POSTGRES);
    await_some("the new generation's tables", WITHIN, || {
        guard.query(&format!("BEGIN; LOCK TABLE {next}.transfer")).map(drop).inspect_err(|_| {
            guard.query("ROLLBACK").unwrap();
        })
    });
    let applied = format!("SELECT sum(version) FROM {next}.account_summary");
    await_some("the accounts' rows", WITHIN, || match number(&postgres, &applied)? {
        count if count == u64::try_from(log.len()).unwrap() => Ok(()),
        count => Err(format!("{count} of {}", log.len())),
    });
    let words = refused(&namespace, &[POSTGRES], 1);
    assert!(words.contains("another rebuild of postgres.banking is at work"), "{words}");
    kill(child);
    guard.query("ROLLBACK").unwrap();
    let live = format!(
        "SELECT generation FROM {millrace}.projection WHERE name = '{POSTGRES}' AND state = 'live'"
    );
    assert_eq!(number(&postgres, &live), Ok(1));

    // Somebody has touched what was built so far.
    let touch = format!(
        "UPDATE {next}.account_summary SET total_fees = total_fees + 1 WHERE account_id = 'acc-3'"
    );
    postgres.query(&touch).unwrap();
    let words = refused(&namespace, &[POSTGRES], 1);
    assert!(words.contains("is not put in use") && words.contains("--start-over"), "{words}");
    assert!(words.contains("banking.account/acc-3") && words.contains("total_fees"), "{words}");
    assert_eq!(number(&postgres, &live), Ok(1));
    postgres.query(&touch.replace("+ 1", "- 1")).unwrap();

    let outcome = rebuilt(&namespace, &[POSTGRES]);
    assert_eq!((&outcome["resumed"], &outcome["generation"]), (&json!(true), &json!(2)));
    // What was built before the kill was not built once more.
    assert!(outcome["events"].as_u64().unwrap() < u64::try_from(log.len()).unwrap(), "{outcome}");
    judge::read_models_equal_log(&namespace, &log);

    let child = start(&namespace, CLICKHOUSE);
    let rows = format!("SELECT count() AS n FROM {millrace}.banking_event_g2");
    await_some("rows in ClickHouse", WITHIN, || match analytics(&namespace, &rows)? {
        rows if rows[0]["n"].as_deref() != Some("0") => Ok(()),
        _ => Err("none".to_owned()),
    });
    kill(child);
    let shown = format!(
        "SELECT comment FROM system.tables WHERE database = '{millrace}' AND name = 'banking'"
    );
    let comment = analytics(&namespace, &shown).unwrap().remove(0)["comment"].clone().unwrap();
    assert!(comment.contains("(generation 1)"), "{comment}");
    let outcome = rebuilt(&namespace, &[CLICKHOUSE]);
    assert_eq!((&outcome["resumed"], &outcome["generation"]), (&json!(true), &json!(2)));
    judge::read_models_equal_log(&namespace, &log);

    // Half of a switch, as a kill leaves it: the next one puts it right.
    let fees = format!("{millrace}.banking_fees_hour");
    execute(&namespace, &format!("CREATE OR REPLACE VIEW {fees} AS SELECT -1 AS fees")).unwrap();
    let half = format!("ALTER TABLE {millrace}.banking MODIFY COMMENT '(generation 2)'");
    execute(&namespace, &half).unwrap();
    let made_by = shown.replace("'banking'", "'banking_event_g2'");
    let made_by = analytics(&namespace, &made_by).unwrap().remove(0)["comment"].clone().unwrap();
    let mark = format!("MODIFY COMMENT '{made_by} building'");
    execute(&namespace, &format!("ALTER TABLE {millrace}.banking_event_g2 {mark}")).unwrap();
    let outcome = rebuilt(&namespace, &[CLICKHOUSE, "--drop-old"]);
    assert_eq!((&outcome["dropped"], &outcome["generation"]), (&json!([1]), &json!(2)));
    let sums = format!("SELECT count() AS n FROM {fees} WHERE fees >= 0");
    assert_ne!(analytics(&namespace, &sums).unwrap()[0]["n"].as_deref(), Some("0"));
    judge::read_models_equal_log(&namespace, &log);
    projections.terminate();
    handler.terminate();
}
