//! Tokens that cannot be answered: each a clear problem, with a code, and none waits in vain.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::desk::{Desk, Told};
use crate::harness::commands::deposit;
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::harness::stores::{Postgres, execute};
use crate::harness::{await_some, http};

const WITHIN: Duration = Duration::from_secs(30);
const ACCOUNT: &str = "/v1/banking/accounts/acc-1";
const PANEL: &str = "/v1/banking/panels/largest-movers";

fn get(serve: &Serve, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let url = format!("{}{path}", serve.url());
    let (status, body) = http::request("GET", &url, headers, "").unwrap();
    (status, serde_json::from_str(&body).unwrap())
}

/// Asks with a token; gives status, code and detail.
fn ask(serve: &Serve, path: &str, token: &str, wait: &str) -> (u16, String, String) {
    let headers = [("Consistency-Token", token), ("Prefer", wait)];
    let (status, body) = get(serve, path, &headers);
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    (status, text("code"), text("detail"))
}

/// The same token for a later event, or with another part changed.
fn with_part(told: &Told, index: usize, part: &str) -> String {
    let mut parts: Vec<&str> = told.token.split('.').collect();
    parts[index] = part;
    parts.join(".")
}

#[track_caller]
fn refused(serve: &Serve, token: &str, status: u16, code: &str) {
    for path in [ACCOUNT, PANEL] {
        let began = Instant::now();
        let found = ask(serve, path, token, "wait=20");
        assert_eq!((found.0, found.1.as_str()), (status, code), "{path}: {}", found.2);
        assert!(began.elapsed() < Duration::from_secs(10), "{path}: at once, not after the wait");
    }
}

#[test]
fn a_token_that_cannot_be_answered_is_a_clear_problem() {
    let namespace = Namespace::new();
    let serve = Serve::ready(&namespace, "");
    let desk = Desk::open(&namespace);
    desk.open_accounts(&["acc-1".to_owned(), "acc-2".to_owned()]);
    let told = desk.accepted("acc-1", &deposit("1"));
    for path in [ACCOUNT, PANEL] {
        assert_eq!(ask(&serve, path, &told.token, "wait=30").0, 200);
    }
    let other = desk.accepted("acc-2", &deposit("1"));
    let (status, account) = get(&serve, ACCOUNT, &[("Consistency-Token", &other.token)]);
    assert_eq!((status, &account["account_id"]), (200, &Value::from("acc-1")));
    // A refusal has a token too: of the stream as it was.
    let refusal = desk.send("acc-1", &deposit("-1"));
    assert_eq!((refusal.outcome.as_str(), refusal.version), ("REJECTED", 2));
    assert_eq!(ask(&serve, ACCOUNT, &refusal.token, "wait=5").0, 200);
    let nobody = desk.send("nobody", &deposit("1"));
    assert_eq!(nobody.version, 0);
    let none = "/v1/banking/accounts/nobody";
    assert_eq!(ask(&serve, none, &nobody.token, "wait=5").0, 404, "as far as that stream goes");

    malformed_and_foreign(&serve, &told);
    beyond(&serve, &told);
    parked(&namespace, &serve, &desk);
    let postgres = Postgres::connect(&namespace).unwrap();
    serve.terminate();
    of_another_topic(&namespace, &postgres, &told);
}

fn malformed_and_foreign(serve: &Serve, told: &Told) {
    for token in ["", "nonsense", &told.token[1..], &with_part(told, 3, "-1")] {
        refused(serve, token, 400, "InvalidConsistencyToken");
    }
    refused(serve, &with_part(told, 0, "2"), 410, "ConsistencyTokenExpired");
    // As of a topic that was deleted and made again, or of another installation.
    let other = "0123456789abcdef0123456789abcdef";
    refused(serve, &with_part(told, 1, other), 410, "ConsistencyTokenExpired");
    let (path, headers) = (format!("{ACCOUNT}?consistency_token=x"), told.token.as_str());
    let (status, body) = get(serve, &path, &[("Consistency-Token", headers)]);
    assert_eq!((status, &body["code"]), (400, &Value::from("InvalidConsistencyToken")));
    assert_eq!(ask(serve, ACCOUNT, &told.token, "wait=61").0, 400);
}

/// The time is over: the problem says what was waited for and where the read model is.
fn beyond(serve: &Serve, told: &Told) {
    let token = with_part(told, 3, "3");
    for path in [ACCOUNT, PANEL] {
        let began = Instant::now();
        let (status, code, detail) = ask(serve, path, &token, "wait=1");
        assert_eq!((status, code.as_str()), (504, "ReadModelBehind"), "{detail}");
        assert!(began.elapsed() >= Duration::from_secs(1));
        assert!(detail.contains("event 3 of banking.account/acc-1"), "{detail}");
        assert!(detail.contains("the last one was 2"), "{detail}");
    }
}

/// What waits behind a parked event does not come by itself; after a redrive it does.
fn parked(namespace: &Namespace, serve: &Serve, desk: &Desk) {
    let postgres = Postgres::connect(namespace).unwrap();
    let rows = format!("{}.account_summary", namespace.schema("banking_g1"));
    let blocks = format!("{}.banking_event_g1", namespace.schema("millrace"));
    let constraint = "ADD CONSTRAINT poison CHECK";
    postgres
        .query(&format!("ALTER TABLE {rows} {constraint} (account_id <> 'acc-2') NOT VALID"))
        .unwrap();
    execute(namespace, &format!("ALTER TABLE {blocks} {constraint} aggregate_id != 'acc-2'"))
        .unwrap();
    desk.accepted("acc-2", &deposit("1"));
    let told = desk.accepted("acc-2", &deposit("1"));
    for path in [ACCOUNT, PANEL] {
        let found = await_some("a parked stream", WITHIN, || {
            let found = ask(serve, path, &told.token, "wait=0");
            if found.0 == 503 { Ok(found) } else { Err(format!("{found:?}")) }
        });
        let (_, code, detail) = found;
        assert_eq!(code, "StreamParked", "{detail}");
        assert!(detail.contains("banking.account/acc-2") && detail.contains("from event 3 on"));
        assert!(detail.contains("millrace dead-letters list"), "{detail}");
        // What stands in front of the parked event is there.
        assert_eq!(ask(serve, path, &with_part(&told, 3, "2"), "wait=0").0, 200);
    }
    // A history is never older than the log.
    let (status, history) = get(serve, "/v1/streams/banking.account/acc-2", &[]);
    assert_eq!((status, &history["total_count"]), (200, &Value::from(4)), "{history}");
    assert_eq!(history["source"]["log"], 2, "{history}");
    postgres.query(&format!("ALTER TABLE {rows} DROP CONSTRAINT poison")).unwrap();
    execute(namespace, &format!("ALTER TABLE {blocks} DROP CONSTRAINT poison")).unwrap();
    namespace.done(&["dead-letters", "redrive", "banking.account/acc-2"]);
    for path in [ACCOUNT, PANEL] {
        assert_eq!(ask(serve, path, &told.token, "wait=30").0, 200, "after the redrive");
    }
}

/// The topic was made again, and the rows are still the old one's.
fn of_another_topic(namespace: &Namespace, postgres: &Postgres, told: &Told) {
    let serve = Serve::ready(namespace, "api");
    let other = "gen_random_uuid()";
    let checkpoint = format!("{}.checkpoint", namespace.schema("millrace"));
    postgres.query(&format!("UPDATE {checkpoint} SET topic_id = {other}")).unwrap();
    let blocks = format!("{}.banking_event_g1", namespace.schema("millrace"));
    let update = format!(
        "ALTER TABLE {blocks} UPDATE topic_id = generateUUIDv4() WHERE true \
         SETTINGS mutations_sync = 1"
    );
    execute(namespace, &update).unwrap();
    refused(&serve, &told.token, 503, "ReadModelOutdated");
    serve.terminate();
}
