//! `millrace send`, `history` and `status` beside a running `millrace serve`.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::installation::{Installation, Serve, get};
use super::{DONE, FAILED, UNREACHABLE, USAGE, expect};

#[test]
fn a_command_goes_to_its_own_partition_and_says_where() {
    let installation = Installation::new();
    expect(&installation.run(&["topics", "apply"]), DONE);
    let id = "6f1c8d6e-6c0f-4e52-9c2b-0a4d8d5f1a11";
    let arguments = ["--json", "send", "banking.account", "acc-1", "Deposit", "amount=1.00"];
    let output = installation.run(&[&arguments[..], &["--id", id]].concat());
    let sent: Value = serde_json::from_str(&expect(&output, DONE).0).unwrap();
    assert_eq!(sent["command_id"], id);
    assert_eq!(sent["partition"], millrace::kernel::stream::partition_of("acc-1", 4));
    assert_eq!(sent["offset"], 0);
    let created = ["--json", "send", "banking.account", "-", "CreateAccount", "user_id=ann"];
    let sent: Value = serde_json::from_str(&expect(&installation.run(&created), DONE).0).unwrap();
    assert_eq!(sent["aggregate_id"].as_str().unwrap().len(), 36, "{sent}");
}

#[test]
fn without_topics_the_way_out_is_named() {
    let installation = Installation::new();
    let output = installation.run(&["send", "banking.account", "acc-1", "CloseAccount"]);
    let (_, err) = expect(&output, FAILED);
    assert!(err.contains("millrace topics apply"), "{err}");
}

#[test]
fn a_command_is_answered_and_its_event_is_history() {
    let installation = Installation::new();
    expect(&installation.run(&["topics", "apply"]), DONE);
    expect(&installation.run(&["schemas", "register"]), DONE);
    let serve = Serve::start(&installation, "handler,reactor");
    let send = |code: i32, arguments: &[&str]| -> Value {
        let all = [&["--json", "send", "banking.account", "acc-1"], arguments].concat();
        let output = installation.run(&[&all[..], &["--wait", "30"]].concat());
        serde_json::from_str(&expect(&output, code).0).unwrap()
    };
    let open = ["CreateAccount", "user_id=ann", "account_type=savings", "initial_deposit=250"];
    let created = send(DONE, &open);
    assert_eq!((&created["outcome"], &created["version"]), (&json!("ACCEPTED"), &json!(1)));

    let id = "6f1c8d6e-6c0f-4e52-9c2b-0a4d8d5f1a11";
    let deposit = ["Deposit", "amount=12.50", "reference=salary", "--id", id, "--actor", "ann"];
    assert_eq!(send(DONE, &deposit)["duplicate"], false);
    assert_eq!(send(DONE, &deposit)["duplicate"], true);
    let other = send(FAILED, &["Deposit", "amount=13.00", "--id", id]);
    assert_eq!(other["code"], "IdempotencyConflict");
    let refused = send(FAILED, &["Withdraw", "amount=999.00"]);
    assert_eq!(refused["code"], "InsufficientFunds");
    assert_eq!(refused["details"], json!({"available": "262.50", "requested": "999.00"}));
    let late = send(FAILED, &["Deposit", "amount=1.00", "--expected-version", "1"]);
    assert_eq!(late["code"], "VersionConflict");
    assert_eq!(late["details"], json!({"actual": "2", "expected": "1"}));
    let bad = send(FAILED, &["Deposit", "amount:=1.5"]);
    assert_eq!(
        (&bad["code"], &bad["details"]["field"]),
        (&json!("InvalidField"), &json!("amount"))
    );

    let taken = Command::new(env!("CARGO_BIN_EXE_millrace"))
        .env("MILLRACE_NAMESPACE", &installation.0)
        .env("MILLRACE_HTTP_ADDR", &serve.addr)
        .args(["serve", "--only", "handler"])
        .output()
        .unwrap();
    let (_, err) = expect(&taken, USAGE);
    assert!(err.contains("MILLRACE_HTTP_ADDR") && err.contains(&serve.addr), "{err}");

    for stream in [&["banking.account/acc-1"][..], &["banking.account", "acc-1"]] {
        let output = installation.run(&[&["history", "--json"], stream].concat());
        let (out, _) = expect(&output, DONE);
        let events: Vec<Value> =
            out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["AccountCreated", "MoneyDeposited"]);
        assert_eq!(events[1]["sequence"], 2);
        assert_eq!(events[1]["command_id"], id);
        assert_eq!(events[1]["actor"], "ann");
        assert_eq!(events[1]["fields"]["reference"], "salary");
    }
    let (out, _) = expect(&installation.run(&["history", "banking.account/acc-1"]), DONE);
    assert!(out.contains("MoneyDeposited") && out.contains("reference=salary"), "{out}");
    let nobody = installation.run(&["history", "banking.account/nobody"]);
    assert!(expect(&nobody, FAILED).1.contains("no such stream"));

    assert_eq!(serve.stop(), Some(DONE));
    let wait = ["send", "banking.account", "acc-1", "CloseAccount", "--wait", "1"];
    let (_, err) = expect(&installation.run(&wait), FAILED);
    assert!(err.contains("is `millrace serve` running?"), "{err}");
}

#[test]
fn a_store_that_is_away_at_the_start_is_exit_code_3() {
    let installation = Installation::new();
    expect(&installation.run(&["topics", "apply"]), DONE);
    expect(&installation.run(&["schemas", "register"]), DONE);
    for (role, setting, url) in [
        ("postgres", "MILLRACE_POSTGRES_URL", "postgres://u:hidden@127.0.0.1:1/d"),
        ("clickhouse", "MILLRACE_CLICKHOUSE_URL", "http://127.0.0.1:1"),
        ("handler", "MILLRACE_KAFKA_BROKERS", "127.0.0.1:1"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_millrace"))
            .env("MILLRACE_NAMESPACE", &installation.0)
            .env("MILLRACE_HTTP_ADDR", "127.0.0.1:0")
            .env("MILLRACE_LOG", "error")
            .env(setting, url)
            .args(["serve", "--only", role])
            .output()
            .unwrap();
        let (_, err) = expect(&output, UNREACHABLE);
        assert!(err.contains(setting) && err.contains("127.0.0.1:1"), "{err}");
        assert!(err.lines().count() == 1 && !err.contains("hidden"), "{err}");
    }
}

#[test]
fn status_shows_when_the_read_models_have_everything_and_http_shows_them() {
    let installation = Installation::new();
    expect(&installation.run(&["topics", "apply"]), DONE);
    expect(&installation.run(&["schemas", "register"]), DONE);
    let fields = ["user_id=ann", "account_type=CHECKING", "initial_deposit=250.00"];
    for id in ["acc-1", "acc-2", "acc-3"] {
        let create = [&["send", "banking.account", id, "CreateAccount"][..], &fields].concat();
        expect(&installation.run(&create), DONE);
    }
    // Nothing runs: what waits is counted, and aged.
    let before = status(&installation);
    let handler = group(&before, "handler");
    assert_eq!((&handler["lag_events"], &handler["state"]), (&json!(3), &json!("stopped")));
    assert!(handler["lag_seconds"].as_f64().unwrap() > 0.0, "{handler}");
    assert_eq!(before["topics"]["drift"], 0);
    let services: Vec<_> = before["services"].as_array().unwrap().iter().collect();
    assert_eq!(services.len(), 4);
    assert!(services.iter().all(|service| service["reachable"] == true), "{before}");

    let serve = Serve::start(&installation, "handler,reactor,postgres,clickhouse,api");
    let deadline = Instant::now() + Duration::from_secs(60);
    while get_count(&serve.addr) < 3 {
        assert!(Instant::now() < deadline, "the accounts are not opened");
    }
    let transfer = ["send", "banking.account", "acc-1", "Transfer"];
    let fields = ["to_account_id=acc-2", "amount=20.00", "reference=rent", "--wait", "30"];
    expect(&installation.run(&[&transfer[..], &fields].concat()), DONE);
    let settled = loop {
        let now = status(&installation);
        let groups = now["groups"].as_array().unwrap();
        let (_, sender) = get(&serve.addr, "/v1/banking/accounts/acc-1");
        let (_, receiver) = get(&serve.addr, "/v1/banking/accounts/acc-2");
        let is_settled = sender.contains(r#""pending_out":"0.00""#) && receiver.contains("270.00");
        if is_settled && groups.iter().all(|group| group["lag_events"] == 0) {
            break now;
        }
        assert!(Instant::now() < deadline, "{now}");
    };
    for stage in ["handler", "postgres", "clickhouse"] {
        let group = group(&settled, stage);
        assert_eq!(
            (&group["state"], &group["exact"]),
            (&json!("running"), &json!(true)),
            "{group}"
        );
    }
    let (table, _) = expect(&installation.run(&["status"]), DONE);
    assert!(table.contains("all as declared") && table.contains("millrace.handler"), "{table}");

    let ask = |path: &str| -> Value {
        let (code, body) = get(&serve.addr, path);
        assert_eq!(code, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    };
    assert_eq!(ask("/readyz")["ready"], true);
    let account = ask("/v1/banking/accounts/acc-1");
    assert_eq!(account["current_balance"], "228.00");
    assert_eq!(account["pending_out"], "0.00");
    let page = ask("/v1/banking/accounts?page=2&size=2");
    assert_eq!((&page["total_count"], &page["has_next_page"]), (&json!(3), &json!(false)));
    assert_eq!(page["data"].as_array().unwrap().len(), 1);
    assert_eq!(ask("/v1/banking/panels/fees?per=day")["data"][0]["fees"], "2");
    let volume = ask("/v1/banking/panels/volume");
    assert_eq!(volume["data"].as_array().unwrap().len(), 3, "{volume}");
    assert_eq!(ask("/v1/banking/panels/balance-by-type")["data"][0]["balance"], "748");
    assert_eq!(ask("/v1/banking/panels/largest-movers?size=1")["data"][0]["account_id"], "acc-1");
    for (path, code) in [
        ("/v1/banking/panels/nothing", 404),
        ("/v1/banking/panels/volume?per=year", 400),
        ("/v1/banking/accounts?size=201", 400),
        ("/v1/banking/accounts/nobody", 404),
        ("/nothing", 404),
        ("/", 200),
        ("/assets/dashboard.js", 200),
        ("/metrics", 200),
    ] {
        assert_eq!(get(&serve.addr, path).0, code, "{path}");
    }
    assert_eq!(serve.stop(), Some(DONE));
}

fn status(installation: &Installation) -> Value {
    serde_json::from_str(&expect(&installation.run(&["status", "--json"]), DONE).0).unwrap()
}

fn group(status: &Value, stage: &str) -> Value {
    let name = format!("millrace.{stage}.banking");
    let groups = status["groups"].as_array().unwrap();
    let found = groups.iter().find(|group| group["group"].as_str().unwrap().ends_with(&name));
    found.cloned().unwrap()
}

/// How many accounts the read model has; none as long as there is nobody to ask.
fn get_count(addr: &str) -> u64 {
    if std::net::TcpStream::connect(addr).is_err() {
        return 0;
    }
    let (code, body) = get(addr, "/v1/banking/accounts");
    let body: Value = serde_json::from_str(&body).unwrap();
    if code == 200 { body["total_count"].as_u64().unwrap() } else { 0 }
}
