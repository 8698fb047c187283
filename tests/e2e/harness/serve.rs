//! `millrace serve` as a child process: started, watched, killed, stopped.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::namespace::Namespace;
use super::{await_some, http};

/// How long a start may take; a killed predecessor's session takes 6 s to run out.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a stop may take.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// A running `millrace serve`; killed when dropped.
pub(crate) struct Serve {
    child: Child,
    addr: String,
    log: PathBuf,
}

impl Serve {
    /// Starts it with these roles, all if there are none, and does not wait.
    pub(crate) fn start(namespace: &Namespace, roles: &str) -> Self {
        Self::start_with(namespace, roles, &[])
    }

    /// As [`Serve::start`], with further settings.
    pub(crate) fn start_with(namespace: &Namespace, roles: &str, env: &[(&str, &str)]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = free.local_addr().unwrap().to_string();
        drop(free);
        let mut command = namespace.command(&["serve"]);
        if !roles.is_empty() {
            command.args(["--only", roles]);
        }
        let port = addr.rsplit(':').next().unwrap();
        let log = namespace.directory().join(format!("serve-{port}.log"));
        let file = File::create(&log).unwrap();
        command
            .env("MILLRACE_HTTP_ADDR", &addr)
            .envs(env.iter().copied())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        Self { child: command.spawn().unwrap(), addr, log }
    }

    /// Starts it and waits until it does its work.
    pub(crate) fn ready(namespace: &Namespace, roles: &str) -> Self {
        let mut serve = Self::start(namespace, roles);
        serve.wait_ready();
        serve
    }

    /// Waits until every component does its work.
    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        await_some("a serve that is ready", READY_WITHIN, || {
            if let Some((status, log)) = self.ended() {
                panic!("serve ended by itself with {status}:\n{log}");
            }
            self.is_ready()
        });
    }

    /// Whether every component does its work; else what `/readyz` says, or why it does not answer.
    pub(crate) fn is_ready(&self) -> Result<(), String> {
        http::get(&format!("http://{}/readyz", self.addr)).map(drop)
    }

    /// How it ended, if it did so by itself, and what it wrote.
    pub(crate) fn ended(&mut self) -> Option<(ExitStatus, String)> {
        let status = self.child.try_wait().unwrap()?;
        Some((status, self.log()))
    }

    /// What it has written so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The most memory that it has held so far, in bytes, as the kernel counts it.
    pub(crate) fn memory_max(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1_024
    }

    /// A signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits until it can be told to stop: it listens for signals before it opens its port.
    #[track_caller]
    pub(crate) fn wait_listening(&self) {
        await_some("an open port", READY_WITHIN, || {
            TcpStream::connect(&self.addr).map(drop).map_err(|error| error.to_string())
        });
    }

    /// What `/readyz` says of a component, if it answers.
    pub(crate) fn component(&self, name: &str) -> Option<Value> {
        let url = format!("http://{}/readyz", self.addr);
        let (_, body) = http::request("GET", &url, &[], "").ok()?;
        let report: Value = serde_json::from_str(&body).ok()?;
        report["components"].get(name).cloned()
    }

    /// Where its HTTP is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What stands at a path of its HTTP, once it answers.
    pub(crate) fn try_get(&self, path: &str) -> Result<String, String> {
        http::get(&format!("http://{}{path}", self.addr))
    }

    /// What stands at a path of its HTTP.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> String {
        http::get(&format!("http://{}{path}", self.addr)).unwrap()
    }

    /// `kill -9`: no destructor, no last word.
    pub(crate) fn kill(mut self) {
        self.kill_now();
    }

    fn kill_now(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM: it must finish what it has in hand and end with 0 within five seconds.
    #[track_caller]
    pub(crate) fn terminate(self) {
        self.stop_within(STOP_WITHIN);
    }

    /// As [`Serve::terminate`], where a service that is away may hold it up.
    #[track_caller]
    pub(crate) fn stop_within(mut self, limit: Duration) {
        self.signal("TERM");
        let started = Instant::now();
        let mut status: Option<ExitStatus> = None;
        while status.is_none() && started.elapsed() < limit {
            status = self.child.try_wait().unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        let log = self.log();
        let status =
            status.unwrap_or_else(|| panic!("still there {limit:?} after SIGTERM:\n{log}"));
        assert_eq!(status.code(), Some(0), "after SIGTERM:\n{log}");
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        self.kill_now();
    }
}
