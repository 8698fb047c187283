//! The command line from outside: exit codes, output, and what it leaves at the brokers.

#![expect(clippy::unwrap_used, reason = "a test's expectations")]

mod commands;
mod installation;
mod topics;
mod verify;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
        ("    configs: {max.message.bytes: {value: 1000, reason: small}}\n", "8000000 at least"),
        ("    partition: 3\n", "unknown field `partition`"),
    ];
    for (text, expected) in cases {
        std::fs::write(place.0.join("banking.yaml"), format!("{head}{text}")).unwrap();
        let (_, err) =
            expect(&alone(&place.0, &nowhere, &["topics", "apply", "--from", "."]), USAGE);
        assert!(err.contains(expected) && err.contains("banking.yaml"), "{err}");
    }
}
