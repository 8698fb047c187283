//! The command line from outside: exit codes, output, and what it leaves at the brokers.

#![expect(clippy::unwrap_used, reason = "a test's expectations")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const UNREACHABLE: i32 = 3;

/// A run of the program that sees the stack's settings, and a namespace of its own if it has one.
fn millrace(namespace: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    if let Some(namespace) = namespace {
        command.env("MILLRACE_NAMESPACE", namespace);
    }
    command.args(arguments).output().unwrap()
}

/// A run of the program that sees no settings but these.
fn alone(place: &Path, settings: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MILLRACE_")) {
        command.env_remove(name);
    }
    let settings = settings.iter().copied();
    command.current_dir(place).envs(settings).args(arguments).output().unwrap()
}

#[track_caller]
fn expect(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout:\n{out}\nstderr:\n{err}");
    (out, err)
}

/// A directory of its own, gone when dropped.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let place =
            std::env::temp_dir().join(format!("millrace-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        Self(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_wrong_setting_is_one_line_and_exit_code_2() {
    let place = Place::new("settings");
    let cases = [
        ("MILLRACE_KAFKA_BROKER", "x", "did you mean MILLRACE_KAFKA_BROKERS?"),
        ("MILLRACE_NAMESPACE", "No Good", "MILLRACE_NAMESPACE in the environment"),
        ("MILLRACE_HANDLER_BATCH", "0", "must be a number from 1 to 5000"),
        ("MILLRACE_LOG", "millrace=loud", "MILLRACE_LOG"),
    ];
    for (name, value, expected) in cases {
        let output = alone(&place.0, &[(name, value)], &["topics", "plan"]);
        let (out, err) = expect(&output, USAGE);
        assert!(err.contains(expected), "{err}");
        assert_eq!((err.lines().count(), out.as_str()), (1, ""), "{err}");
    }
    let secret = [("MILLRACE_POSTGRES_URL", "mysql://u:hidden@h/d")];
    let (_, err) = expect(&alone(&place.0, &secret, &["topics", "plan"]), USAGE);
    assert!(!err.contains("hidden"), "{err}");
    std::fs::write(place.0.join("millrace.toml"), "[kafka]\nbrokerz = \"a:1\"\n").unwrap();
    let (_, err) = expect(&alone(&place.0, &[], &["topics", "plan"]), USAGE);
    assert!(err.contains("kafka.brokerz") && err.contains("did you mean kafka.brokers?"), "{err}");
}

#[test]
fn wrong_usage_is_exit_code_2_and_help_needs_no_settings() {
    let place = Place::new("usage");
    expect(&alone(&place.0, &[], &["topics", "destroy"]), USAGE);
    expect(&alone(&place.0, &[], &["nothing"]), USAGE);
    let wrong = [("MILLRACE_NOTHING", "1")];
    for command in ["topics", "send", "history"] {
        let (out, _) = expect(&alone(&place.0, &wrong, &[command, "--help"]), DONE);
        assert!(out.contains("Example"), "{command} has no example: {out}");
        assert!(!out.contains('\x1b'), "colours in a pipe: {out:?}");
    }
    let unknown = alone(&place.0, &[], &["send", "banking.acount", "a", "Deposit"]);
    let (_, err) = expect(&unknown, USAGE);
    assert!(err.contains("did you mean banking.account?"), "{err}");
}

#[test]
fn a_service_that_is_away_is_exit_code_3() {
    let place = Place::new("away");
    let nowhere = [("MILLRACE_KAFKA_BROKERS", "127.0.0.1:1"), ("MILLRACE_LOG", "off")];
    for arguments in [&["topics", "plan"][..], &["send", "banking.account", "a", "CloseAccount"]] {
        let (_, err) = expect(&alone(&place.0, &nowhere, arguments), UNREACHABLE);
        assert!(err.contains("127.0.0.1:1") && err.contains("MILLRACE_KAFKA_BROKERS"), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

#[test]
fn declarations_that_would_lose_data_are_refused_before_anything_is_asked() {
    let place = Place::new("unsafe");
    let nowhere = [("MILLRACE_KAFKA_BROKERS", "127.0.0.1:1")];
    let head = "partitions: 2\nreplication: 1\ntopics:\n  - name: banking.account.events\n";
    let cases = [
        ("    key: aggregate-id\n", "not unique"),
        ("    configs: {cleanup.policy: {value: delete, reason: cheaper}}\n", "deletes events"),
        ("    configs: {retention.ms: {value: 1000, reason: cheaper}}\n", "deletes events"),
        ("    configs: {max.message.bytes: {value: 1000, reason: small}}\n", "1000000 at least"),
        ("    partition: 3\n", "unknown field `partition`"),
    ];
    for (text, expected) in cases {
        std::fs::write(place.0.join("banking.yaml"), format!("{head}{text}")).unwrap();
        let (_, err) =
            expect(&alone(&place.0, &nowhere, &["topics", "apply", "--from", "."]), USAGE);
        assert!(err.contains(expected) && err.contains("banking.yaml"), "{err}");
    }
}

mod with_the_stack {
    use std::process::{Child, Stdio};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    use millrace::config::Config;
    use millrace::kernel::message::Headers;
    use millrace::kernel::stream::{Namespace, event_key};
    use millrace::log::kafka::sender::Sender;
    use millrace::log::kafka::topic::Admin;
    use millrace::topics;
    use serde_json::json;

    use super::*;

    /// A namespace whose topics are deleted when it is dropped.
    struct Installation(String);

    impl Installation {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            Self(format!("cli{}n{number}", std::process::id()))
        }

        fn run(&self, arguments: &[&str]) -> Output {
            millrace(Some(&self.0), arguments)
        }

        fn plan(&self, code: i32, arguments: &[&str]) -> Value {
            let all = [&["--json", "topics", "plan"], arguments].concat();
            serde_json::from_str(&expect(&self.run(&all), code).0).unwrap()
        }

        fn topic(&self, name: &str) -> String {
            format!("{}.{name}", self.0)
        }
    }

    impl Drop for Installation {
        fn drop(&mut self) {
            let config = Config::load().unwrap();
            let topics = topics::declared(&Namespace::new(&self.0).unwrap()).unwrap();
            let names: Vec<_> = topics.iter().map(|topic| topic.name.as_str()).collect();
            runtime().block_on(async {
                let admin = Admin::connect(&config.kafka).await.unwrap();
                admin.delete(&names).await.unwrap();
            });
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

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
        assert_eq!(plan["drift"], 1, "{plan}");
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
            assert!(
                err.contains("has 4 partitions") && err.contains("nothing was changed"),
                "{err}"
            );
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
        let sent: Value =
            serde_json::from_str(&expect(&installation.run(&created), DONE).0).unwrap();
        assert_eq!(sent["aggregate_id"].as_str().unwrap().len(), 36, "{sent}");
    }

    #[test]
    fn without_topics_the_way_out_is_named() {
        let installation = Installation::new();
        let output = installation.run(&["send", "banking.account", "acc-1", "CloseAccount"]);
        let (_, err) = expect(&output, FAILED);
        assert!(err.contains("millrace topics apply"), "{err}");
    }

    /// A running `serve`, killed when dropped.
    struct Serve {
        child: Child,
        addr: String,
    }

    impl Serve {
        fn start(installation: &Installation) -> Self {
            // Free at this moment; nobody else asks for it in the next.
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap().to_string();
            drop(listener);
            let child = Command::new(env!("CARGO_BIN_EXE_millrace"))
                .env("MILLRACE_NAMESPACE", &installation.0)
                .env("MILLRACE_HTTP_ADDR", &addr)
                .env("MILLRACE_LOG", "warn")
                .args(["serve", "--only", "handler"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            Self { child, addr }
        }

        /// Tells it to stop and returns its exit code.
        fn stop(mut self) -> Option<i32> {
            let pid = self.child.id().to_string();
            assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
            let start = Instant::now();
            let code = self.child.wait().unwrap().code();
            assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
            code
        }
    }

    impl Drop for Serve {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[test]
    fn a_command_is_answered_and_its_event_is_history() {
        let installation = Installation::new();
        expect(&installation.run(&["topics", "apply"]), DONE);
        expect(&installation.run(&["schemas", "register"]), DONE);
        let serve = Serve::start(&installation);
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
            let types: Vec<_> =
                events.iter().map(|event| event["type"].as_str().unwrap()).collect();
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
}
