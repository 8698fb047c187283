//! The command line's doors to a running installation: `send`, `history`, `status`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::await_some;
use crate::harness::commands::new_id;
use crate::harness::judge;
use crate::harness::log::{Answers, events_of};
use crate::harness::namespace::{Namespace, texts};
use crate::harness::serve::Serve;

#[test]
fn send_waits_history_shows_and_status_counts() {
    let namespace = Namespace::as_declared();
    let serve = Serve::ready(&namespace, "");
    let id = new_id().to_string();
    let create = [
        "send",
        "banking.account",
        "acc-1",
        "CreateAccount",
        "user_id=ann",
        "account_type=CHECKING",
        "initial_deposit=250.00",
        "--id",
        &id,
        "--wait",
        "30",
    ];
    let created = namespace.json(&create);
    assert_eq!(created[0]["outcome"], "ACCEPTED", "{created:?}");
    assert_eq!(created[0]["command_id"], id);
    assert_eq!(created[0]["version"], 1);
    assert_eq!(namespace.json(&create)[0]["duplicate"], true);
    let refused = namespace.run(&[
        "--json",
        "send",
        "banking.account",
        "acc-1",
        "Withdraw",
        "amount=250.01",
        "--wait",
        "30",
    ]);
    let (out, _) = texts(&refused);
    assert_eq!(refused.status.code(), Some(1), "{out}");
    let refused: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(refused["code"], "InsufficientFunds");
    let details = json!({"available": "250.00", "requested": "250.01"});
    assert_eq!(refused["details"], details, "{refused}");
    namespace.done(&["send", "banking.account", "acc-1", "Deposit", "amount=1.50", "--wait", "30"]);

    let all = judge::log_is_sound(&namespace);
    judge::results_match_log(&Answers::new(&namespace).into_all(), &all);
    let own = events_of(&all, "acc-1");
    let history = namespace.json(&["history", "banking.account/acc-1"]);
    assert_eq!(history.len(), own.len());
    for (line, event) in history.iter().zip(own) {
        assert_eq!(line["sequence"], event.sequence);
        assert_eq!(line["type"], event.short_name());
        assert_eq!(line["event_id"].as_str(), event.header("ce_id"));
        assert_eq!(line["command_id"].as_str(), event.header("command_id"));
        assert_eq!(line["time"].as_str(), event.header("ce_time"));
        assert_eq!(line["offset"], event.message.record.place.offset);
    }
    assert_eq!(history[1]["fields"]["balance_after"], "251.5");
    let nobody = namespace.run(&["history", "banking.account/acc-2"]);
    assert_eq!(nobody.status.code(), Some(1), "there is no such stream");

    judge::read_models_equal_log(&namespace, &all);
    // The groups' offsets follow the rows within a moment.
    let status = await_some("no lag", Duration::from_secs(30), || {
        let status = namespace.json(&["status"]).remove(0);
        let groups = status["groups"].as_array().cloned().unwrap_or_default();
        let behind = groups.iter().filter(|group| group["lag_events"] != 0).count();
        if groups.len() == 5 && behind == 0 { Ok(status) } else { Err(status.to_string()) }
    });
    let services = status["services"].as_array().unwrap();
    assert_eq!(services.len(), 4, "{status}");
    assert!(services.iter().all(|service| service["reachable"] == true), "{status}");
    let groups = status["groups"].as_array().unwrap().iter();
    let mut groups: Vec<_> = groups.map(|group| group["group"].as_str().unwrap()).collect();
    groups.sort_unstable();
    let expected = [
        "clickhouse.banking",
        "handler.banking",
        "postgres.banking",
        "reactor.account-opening",
        "reactor.transfer",
    ]
    .map(|it| namespace.group(it));
    assert_eq!(groups, expected, "{status}");

    let metrics = serve.get("/metrics");
    assert!(metrics.contains("millrace_handler_commands"), "{metrics}");
    assert_eq!(serve.component("nothing"), None);
    assert!(serve.component("handler.banking").is_some());
    serve.terminate();
}
