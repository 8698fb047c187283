//! `millrace verify`, and the auditor inside `millrace serve`.

use std::time::{Duration, Instant};

use millrace::config::Config;
use millrace::kernel::stream::Namespace;
use millrace::read_model::store::postgres;
use serde_json::Value;

use super::installation::{Installation, Serve, get, runtime};
use super::{DONE, FAILED, USAGE, expect};

fn verify(installation: &Installation, code: i32, arguments: &[&str]) -> Value {
    let output = installation.run(&[&["--json", "verify"], arguments].concat());
    serde_json::from_str(&expect(&output, code).0).unwrap()
}

/// Looks until it is so.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(180), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Runs a statement on the tables of banking's generation.
fn change(installation: &Installation, statement: &str) {
    let mut config = Config::load().unwrap();
    config.namespace = Namespace::new(&installation.0).unwrap();
    let schema = config.namespace.underscored("banking_g1");
    runtime().block_on(async {
        let database = postgres::Database::new(&config.postgres, &config.namespace).unwrap();
        let client = database.client().await.unwrap();
        client.batch_execute(&statement.replace("{s}", &schema)).await.unwrap();
    });
}

#[test]
fn what_a_store_says_else_than_the_log_is_named_by_hand_and_in_the_background() {
    let installation = Installation::new();
    expect(&installation.run(&["topics", "apply"]), DONE);
    expect(&installation.run(&["schemas", "register"]), DONE);
    let settings = [("MILLRACE_AUDIT_INTERVAL", "1"), ("MILLRACE_HANDLER_SNAPSHOT_EVERY", "2")];
    let roles = "handler,reactor,postgres,clickhouse";
    let serve = Serve::start_with(&installation, roles, &settings);
    for number in 0..8 {
        let (id, user) = (format!("acc-{number}"), format!("user_id=user-{number}"));
        let open = ["send", "banking.account", &id, "CreateAccount", &user];
        let open = [&open[..], &["account_type=savings", "initial_deposit=250"]].concat();
        expect(&installation.run(&[&open[..], &["--wait", "60"]].concat()), DONE);
        let pay = ["send", "banking.account", &id, "Transfer", "to_account_id=acc-0", "amount=9"];
        if number > 0 {
            expect(&installation.run(&[&pay[..], &["--wait", "60"]].concat()), DONE);
        }
    }
    until("both stores have every account", || {
        let report = verify(&installation, DONE, &["--all"]);
        assert_eq!(report["differences"], serde_json::json!([]));
        report["compared"]["postgres_rows"].as_u64() >= Some(8 + 8 + 7)
            && report["compared"]["clickhouse_rows"].as_u64() >= Some(40)
            && report["compared"]["snapshots"].as_u64() >= Some(7)
    });

    change(&installation, "UPDATE {s}.account_summary SET total_fees = total_fees + 1");
    let report = verify(&installation, FAILED, &["banking.account/acc-3"]);
    let found = &report["differences"][0];
    assert_eq!(
        (&found["store"], &found["stream"]),
        (&"postgres".into(), &"banking.account/acc-3".into())
    );
    assert_eq!((&found["column"], &found["expected"]), (&"total_fees".into(), &"2".into()));
    assert_eq!(found["found"], "3");
    let sample =
        verify(&installation, FAILED, &["--projection", "postgres.banking", "--sample", "5"]);
    assert!(sample["differences"].as_array().is_some_and(|all| !all.is_empty()), "{sample}");
    let since = verify(&installation, FAILED, &["--all", "--since", "2026-01-01T00:00:00Z"]);
    assert_eq!(since["differences"].as_array().map(Vec::len), Some(8));
    let none = verify(&installation, DONE, &["--all", "--since", "2099-01-01T00:00:00Z"]);
    assert_eq!(none["compared"]["streams"], 0);
    verify(&installation, DONE, &["--projection", "clickhouse"]);
    let output = installation.run(&["verify", "--all", "--repair"]);
    let (out, err) = expect(&output, FAILED);
    assert!(out.contains("differences: ") && out.contains("account_summary.total_fees"), "{out}");
    assert!(err.contains("--reset-offsets --to-earliest --topic"), "{err}");

    let metric = |name: &str| {
        let (_, page) = get(&serve.addr, "/metrics");
        let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_default()
    };
    until("the background audit finds it", || metric("millrace_audit_differences") > 0.5);
    assert!(metric("millrace_audit_streams_total") > 0.5);
    assert!(metric("millrace_audit_last_timestamp_seconds") > 1e9);
    change(&installation, "UPDATE {s}.account_summary SET total_fees = total_fees - 1");
    until("the background audit finds it put right", || metric("millrace_audit_differences") < 0.5);
    verify(&installation, DONE, &["--all"]);
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn what_cannot_be_verified_is_a_matter_of_usage() {
    let installation = Installation::new();
    for arguments in [
        &["verify"][..],
        &["verify", "banking.acount/x"],
        &["verify", "--projection", "mysql.banking"],
        &["verify", "--all", "--since", "yesterday"],
        &["verify", "--all", "--sample", "5"],
    ] {
        expect(&installation.run(arguments), USAGE);
    }
}
