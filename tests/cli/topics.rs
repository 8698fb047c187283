//! `millrace topics` against the real brokers.

use std::path::Path;

use millrace::config::Config;
use millrace::kernel::message::Headers;
use millrace::kernel::stream::{Namespace, event_key};
use millrace::log::kafka::sender::Sender;
use millrace::log::kafka::topic::Admin;
use millrace::topics;

use super::installation::{Installation, runtime};
use super::{DONE, FAILED, Place, expect};

/// Writes the compiled-in declarations to a directory, changed.
fn declarations(place: &Place, change: impl Fn(&str) -> String) -> String {
    for file in topics::FILES {
        let name = Path::new(file.path).file_name().unwrap();
        std::fs::write(place.0.join(name), change(file.text)).unwrap();
    }
    place.0.to_str().unwrap().to_owned()
}

#[test]
fn apply_makes_what_plan_misses_and_changes_only_what_differs() {
    let installation = Installation::new();
    let plan = installation.plan(FAILED, &[]);
    let count = plan["topics"].as_array().unwrap().len();
    assert_eq!(plan["drift"], count, "everything is missing: {plan}");
    assert_eq!(plan["topics"][0]["drift"][0]["found"], "missing");
    let (table, _) = expect(&installation.run(&["topics", "plan"]), FAILED);
    assert!(table.contains(&installation.topic("banking.account.events")), "{table}");

    let (out, _) = expect(&installation.run(&["topics", "apply"]), DONE);
    assert_eq!(out.matches("created ").count(), count, "{out}");
    assert_eq!(installation.plan(DONE, &[])["drift"], 0);
    let (out, _) = expect(&installation.run(&["topics", "apply"]), DONE);
    assert!(!out.contains("created") && !out.contains("changed"), "{out}");

    // A setting of the operator's own is kept when others are changed.
    let place = Place::new("drift");
    let extra = declarations(&place, |text| {
        let own = "    configs: {segment.ms: {value: 7200000, reason: own}}\n";
        let events = "  - name: banking.account.events\n";
        text.replace(events, &format!("{events}{own}"))
    });
    expect(&installation.run(&["topics", "apply", "--from", &extra]), DONE);
    let changed = declarations(&place, |text| text.replace("691200000", "691200001"));
    let plan = installation.plan(FAILED, &["--from", &changed]);
    let is_results =
        |topic: &&serde_json::Value| topic["topic"].as_str().unwrap().ends_with(".results");
    let results = plan["topics"].as_array().unwrap().iter().filter(is_results).count();
    assert_eq!(plan["drift"], results, "{plan}");
    let (out, _) = expect(&installation.run(&["topics", "apply", "--from", &changed]), DONE);
    assert!(out.contains("changed") && out.contains("account.results"), "{out}");
    assert_eq!(installation.plan(DONE, &["--from", &changed])["drift"], 0);
    let both = declarations(&place, |text| {
        let own = "    configs: {segment.ms: {value: 7200000, reason: own}}\n";
        let events = "  - name: banking.account.events\n";
        text.replace("691200000", "691200001").replace(events, &format!("{events}{own}"))
    });
    assert_eq!(installation.plan(DONE, &["--from", &both])["drift"], 0);
}

#[test]
fn another_partition_count_is_refused_and_nothing_is_changed() {
    let installation = Installation::new();
    expect(&installation.run(&["topics", "apply"]), DONE);
    let place = Place::new("partitions");
    for count in ["8", "2"] {
        let from = declarations(&place, |text| {
            let partitions = format!("partitions: {count}");
            text.replace("partitions: 4", &partitions).replace("691200000", "691200001")
        });
        let plan = installation.plan(FAILED, &["--from", &from]);
        assert_eq!(plan["topics"][0]["drift"][0]["repairable"], false, "{plan}");
        let (_, err) = expect(&installation.run(&["topics", "apply", "--from", &from]), FAILED);
        assert!(err.contains("has 4 partitions") && err.contains("nothing was changed"), "{err}");
    }
    assert_eq!(installation.plan(DONE, &[])["drift"], 0, "not even the other setting");
}

#[test]
fn compaction_is_refused_where_keys_are_not_unique() {
    let installation = Installation::new();
    let config = Config::load().unwrap();
    let name = installation.topic("banking.account.events");
    // A topic that somebody made by hand, keyed by the account alone.
    let mut by_hand = topics::declared(&Namespace::new(&installation.0).unwrap()).unwrap();
    by_hand.retain(|topic| topic.name == name);
    for topic in &mut by_hand {
        topic.configs.retain(|name, _| name == "max.message.bytes");
    }
    let send = |key: Vec<u8>| {
        let config = config.clone();
        let name = name.clone();
        async move {
            let sender = Sender::open(&config.kafka).unwrap();
            sender.send(&name, 2, &key, b"{}", &Headers::default()).await.unwrap();
        }
    };
    runtime().block_on(async {
        let admin = Admin::connect(&config.kafka).await.unwrap();
        admin.create(&by_hand).await.unwrap();
        send(event_key("acc-1", 1)).await;
        send(b"acc-1".to_vec()).await;
    });
    let (_, err) = expect(&installation.run(&["topics", "apply"]), FAILED);
    assert!(err.contains("not unique") && err.contains("partition 2, offset 1"), "{err}");
    assert_ne!(installation.plan(FAILED, &[])["drift"], 0);
}
