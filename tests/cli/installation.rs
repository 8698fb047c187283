//! What a test has for itself on the real services: a namespace with its topics, a `serve`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use millrace::config::Config;
use millrace::kernel::stream::Namespace;
use millrace::log::kafka::topic::Admin;
use millrace::read_model::store::{clickhouse, postgres};
use millrace::topics;
use serde_json::Value;

use super::{expect, millrace};

/// A namespace whose topics are deleted when it is dropped.
pub(crate) struct Installation(pub(crate) String);

impl Installation {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(format!("cli{}n{number}", std::process::id()))
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        millrace(Some(&self.0), arguments)
    }

    pub(crate) fn plan(&self, code: i32, arguments: &[&str]) -> Value {
        let all = [&["--json", "topics", "plan"], arguments].concat();
        serde_json::from_str(&expect(&self.run(&all), code).0).unwrap()
    }

    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.0)
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        let mut config = Config::load().unwrap();
        config.namespace = Namespace::new(&self.0).unwrap();
        let topics = topics::declared(&config.namespace).unwrap();
        let names: Vec<_> = topics.iter().map(|topic| topic.name.as_str()).collect();
        runtime().block_on(async {
            let admin = Admin::connect(&config.kafka).await.unwrap();
            admin.delete(&names).await.unwrap();
            let database = postgres::Database::new(&config.postgres, &config.namespace).unwrap();
            let client = database.client().await.unwrap();
            for schema in ["banking", "banking_g1", "millrace"] {
                let schema = config.namespace.underscored(schema);
                let drop = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
                client.batch_execute(&drop).await.unwrap();
            }
            let events = clickhouse::Database::new(&config.clickhouse, &config.namespace).unwrap();
            let drop = format!("DROP DATABASE IF EXISTS {} SYNC", events.name());
            events.client().query(&drop).execute().await.unwrap();
        });
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A running `serve`, killed when dropped.
pub(crate) struct Serve {
    child: Child,
    pub(crate) addr: String,
}

impl Serve {
    pub(crate) fn start(installation: &Installation, roles: &str) -> Self {
        Self::start_with(installation, roles, &[])
    }

    pub(crate) fn start_with(
        installation: &Installation,
        roles: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        // Free at this moment; nobody else asks for it in the next.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        drop(listener);
        let child = Command::new(env!("CARGO_BIN_EXE_millrace"))
            .env("MILLRACE_NAMESPACE", &installation.0)
            .env("MILLRACE_HTTP_ADDR", &addr)
            .env("MILLRACE_LOG", "warn")
            .envs(settings.iter().copied())
            .args(["serve", "--only", roles])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, addr }
    }

    /// Tells it to stop and returns its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
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

/// Asks over HTTP; the status and the body.
pub(crate) fn get(addr: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}
