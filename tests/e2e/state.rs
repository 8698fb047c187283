//! Memory for next to nothing: answers and accounts stand in the state directory, through kills,
//! with a directory that is gone, and on a disk that is full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use uuid::Uuid;

use crate::harness::await_some;
use crate::harness::commands::{command_with_id, create, deposit, new_id};
use crate::harness::judge;
use crate::harness::kafka::{Message, Producer};
use crate::harness::log::Answers;
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;

const ACCOUNTS: usize = 150;
const ROUNDS: usize = 4;
/// A partition keeps so little in memory.
const STREAMS: &str = "25";
const ANSWERS: &str = "20";
/// How long a disk that is full, or free again, may take to be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(40);

struct Bank<'n> {
    namespace: &'n Namespace,
    state: PathBuf,
    producer: Producer,
    sent: Vec<(Uuid, Message)>,
}

impl<'n> Bank<'n> {
    fn new(namespace: &'n Namespace, state: PathBuf) -> Self {
        let producer = Producer::new(&namespace.stack);
        Self { namespace, state, producer, sent: Vec::new() }
    }

    fn serve(&self) -> Serve {
        let settings = [
            ("MILLRACE_HANDLER_STREAMS_IN_MEMORY", STREAMS),
            ("MILLRACE_HANDLER_ANSWERS_IN_MEMORY", ANSWERS),
            ("MILLRACE_HANDLER_STATE_DIR", self.state.to_str().unwrap()),
        ];
        let mut serve = Serve::start_with(self.namespace, "handler,reactor", &settings);
        serve.wait_ready();
        serve
    }

    /// Sends one command to every account; gives their ids.
    fn round(&mut self, body: impl Fn(usize) -> serde_json::Value) -> Vec<Uuid> {
        let message = |account| {
            let id = new_id();
            (id, command_with_id(&format!("acc-{account}"), id, &body(account)))
        };
        let round: Vec<_> = (0..ACCOUNTS).map(message).collect();
        self.send(&round);
        self.sent.extend(round.iter().cloned());
        round.into_iter().map(|(id, _)| id).collect()
    }

    fn send(&self, messages: &[(Uuid, Message)]) {
        let messages: Vec<_> = messages.iter().map(|(_, message)| message.clone()).collect();
        self.producer.send(&self.namespace.topic("commands"), &messages);
    }

    fn ids(&self) -> Vec<Uuid> {
        self.sent.iter().map(|(id, _)| *id).collect()
    }
}

/// Who owns each of the handler's partitions, and what that process is doing there.
fn owners(namespace: &Namespace) -> Vec<(String, String)> {
    let status = namespace.json(&["status"]).remove(0);
    let topic = namespace.topic("commands");
    let handlers = status["handlers"].as_array().unwrap().iter();
    let handlers = handlers.filter(|one| one["topic"] == topic);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    handlers.map(|one| (text(&one["owner"]["instance"]), text(&one["state"]))).collect()
}

/// Every repeat is the first answer but for its mark.
#[track_caller]
fn repeats_are_the_first_answers(answers: &Answers<'_>, ids: &[Uuid], nth: usize) {
    for id in ids {
        let all = answers.all(*id);
        assert!(all[0].is_accepted() && !all[0].is_duplicate(), "{:?}", all[0]);
        let mut first = all[0].fields.clone();
        first["duplicate"] = true.into();
        assert_eq!(all[nth].fields, first, "{id}");
    }
}

#[test]
fn what_memory_has_no_room_for_outlives_kills_and_a_directory_that_is_gone() {
    let namespace = Namespace::as_declared();
    let state = namespace.directory().join("state");
    let mut bank = Bank::new(&namespace, state.clone());
    let mut answers = Answers::new(&namespace);
    let serve = bank.serve();
    let opened = bank.round(|account| create(&format!("kim-{account}"), "CHECKING", "100.00"));
    answers.await_count(&opened, 1);
    for _ in 1..ROUNDS {
        let paid = bank.round(|_| deposit("1.00"));
        answers.await_count(&paid, 1);
    }
    let partition = state.join(namespace.topic("commands")).join("0");
    assert!(partition.join("0/answers").is_dir() && partition.join("0/streams").is_dir());
    serve.kill();

    assert!(owners(&namespace).iter().all(|(_, state)| state != "running"), "nobody is there");

    // Another life finds all answers: most on the disk, the newest in the log.
    let serve = bank.serve();
    let owners = owners(&namespace);
    assert_eq!(owners.len(), 4, "a line for each partition");
    for (instance, state) in owners {
        assert!(instance.starts_with("millrace-") && state == "running", "{instance}: {state}");
    }
    bank.send(&bank.sent);
    answers.await_count(&bank.ids(), 2);
    repeats_are_the_first_answers(&answers, &bank.ids(), 1);
    // Killed in the middle of its work.
    let paid = bank.round(|_| deposit("2.00"));
    answers.await_count(&paid[..1], 1);
    serve.kill();

    // The directory is gone: everything is in the log.
    fs::remove_dir_all(&state).unwrap();
    let serve = bank.serve();
    answers.await_count(&paid, 1);
    bank.send(&bank.sent);
    answers.await_count(&bank.ids(), 2);
    repeats_are_the_first_answers(&answers, &paid, 1);
    let more = bank.round(|_| deposit("3.00"));
    answers.await_count(&more, 1);
    for id in &more {
        assert_eq!(answers.all(*id)[0].fields["version"], ROUNDS + 2, "the version goes on");
    }
    serve.terminate();
    let all = judge::log_is_sound(&namespace);
    assert_eq!(all.len(), ACCOUNTS * (ROUNDS + 2), "nothing was done twice");
    judge::results_match_log(&answers.into_all(), &all);
}

/// A small file system of its own, mounted for a test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// It needs root, as the stack does.
    fn mount(path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        let size = ["-t", "tmpfs", "-o", "size=24m", "tmpfs"];
        let mounted = Command::new("mount").args(size).arg(path).status().unwrap();
        assert!(mounted.success(), "mounting a small tmpfs at {} needs root", path.display());
        Self(path.to_owned())
    }

    /// Leaves no byte free.
    fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        // It ends with "no space left", as it should.
        let input = "if=/dev/zero".to_owned();
        let output = format!("of={}", filler.display());
        let ended = Command::new("dd").args([&input, &output, "bs=4096"]).output().unwrap();
        assert!(!ended.status.success(), "the disk is full");
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_waited_for_and_work_resumes_by_itself() {
    let namespace = Namespace::new();
    let disk = SmallDisk::mount(&namespace.directory().join("disk"));
    let mut bank = Bank::new(&namespace, disk.0.join("state"));
    let mut answers = Answers::new(&namespace);
    let mut serve = bank.serve();
    let opened = bank.round(|account| create(&format!("lou-{account}"), "CHECKING", "100.00"));
    answers.await_count(&opened, 1);

    let filler = disk.fill();
    let mut late = Vec::new();
    await_some("a handler that waits for its disk", SEEN_WITHIN, || {
        late.extend(bank.round(|_| deposit("1.00")));
        let component = serve.component("handler.banking").unwrap_or_default();
        let detail = component["detail"].as_str().unwrap_or_default();
        let says_so = detail.contains("No space left") && detail.contains("free some space");
        if component["state"] == "waiting" && says_so { Ok(()) } else { Err(component.to_string()) }
    });
    fs::remove_file(filler).unwrap();
    answers.await_count(&late, 1);
    serve.wait_ready();
    bank.send(&bank.sent);
    answers.await_count(&bank.ids(), 2);
    repeats_are_the_first_answers(&answers, &bank.ids(), 1);
    serve.terminate();
    let all = judge::log_is_sound(&namespace);
    assert_eq!(all.len(), bank.sent.len(), "nothing lost, nothing doubled");
    judge::results_match_log(&answers.into_all(), &all);
}
