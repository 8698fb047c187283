//! The layout's rules, so that the house stays as it was drawn: who may import whom, which crate
//! has which home, and how large a file may grow.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where its expectation ends, and says what it saw"
)]

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const WIDTH_MAX: usize = 100;

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{folder} holds no source");
    found
}

/// The lines of code: no comments, no tests at a file's end.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    code.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// A line without what stands between quotes.
fn without_text(line: &str) -> String {
    line.split('"').step_by(2).collect()
}

fn forbid(folder: &str, words: &[&str], why: &str) {
    let mut broken = Vec::new();
    for (path, text) in sources(folder) {
        for (number, line) in code(&text) {
            for word in words.iter().filter(|word| line.contains(**word)) {
                broken.push(format!("{}:{number}: {word} ({why})", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// Which of our own modules a folder may name.
fn imports_only(folder: &str, allowed: &[&str]) {
    let mut broken = Vec::new();
    for (path, text) in sources(folder) {
        for (number, line) in code(&text) {
            for found in line.match_indices("crate::").map(|(at, _)| &line[at + 7..]) {
                let module: String =
                    found.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !module.is_empty() && !allowed.contains(&module.as_str()) {
                    broken.push(format!("{}:{number}: crate::{module}", path.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{folder} may import {allowed:?} only:\n{}", broken.join("\n"));
}

#[test]
fn imports_go_one_way() {
    imports_only("src/kernel", &["kernel"]);
    imports_only("src/domain", &["kernel", "domain"]);
    imports_only("src/codec", &["kernel", "domain", "codec", "config"]);
    imports_only("src/engine", &["kernel", "engine"]);
    imports_only("src/log", &["kernel", "config", "topics", "log", "clock"]);
    imports_only("src/state", &["kernel", "engine", "state"]);
    let runtime =
        ["kernel", "engine", "log", "state", "read_model", "codec", "config", "clock", "runtime"];
    imports_only("src/runtime", &runtime);
}

#[test]
fn the_auditor_shares_nothing_with_what_it_checks() {
    imports_only("src/audit", &["kernel", "config", "log", "audit"]);
    // Of the kernel: names, times and records as they are, and nothing that gives them a meaning.
    let meanings = [
        "kernel::projection",
        "kernel::decider",
        "kernel::codec",
        "kernel::scenario",
        "parse_event_key",
        "evolve",
        "serde_avro_fast",
    ];
    forbid("src/audit", &meanings, "the auditor has its own decoding and its own fold");
}

#[test]
fn pure_folders_touch_nothing_outside() {
    let outside = [
        "rdkafka",
        "fjall",
        "tokio",
        "reqwest",
        "axum",
        "clap",
        "std::fs",
        "std::net",
        "std::thread",
        "std::process",
        "std::env",
        "Instant",
        "SystemTime",
        "Utc::now",
        "rand::",
    ];
    for folder in ["src/kernel", "src/domain", "src/engine"] {
        forbid(folder, &outside, "a pure folder does no I/O and reads no clock");
    }
}

#[test]
fn machinery_does_not_say_a_domains_word() {
    let words = ["banking", "account", "commerce", "trading"];
    for folder in ["src/engine", "src/runtime", "src/log/kafka"] {
        let mut broken = Vec::new();
        for (path, text) in sources(folder) {
            for (number, line) in code(&text) {
                let lower = line.to_lowercase();
                for word in words.iter().filter(|word| lower.contains(**word)) {
                    broken.push(format!("{}:{number}: {word}", path.display()));
                }
            }
        }
        assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    }
}

#[test]
fn every_outside_system_has_one_home() {
    let homes = [
        ("rdkafka", "src/log/kafka"),
        ("serde_avro_fast", "src/codec"),
        ("apache_avro", "src/codec"),
        ("schema_registry_converter", "src/codec"),
        ("tokio_postgres", "src/read_model"),
        ("deadpool_postgres", "src/read_model"),
        ("use clickhouse::", "src/read_model"),
        ("fjall", "src/state"),
        ("axum", "src/http"),
        ("clap::", "src/cli"),
        ("comfy_table", "src/cli"),
        ("indicatif", "src/cli"),
        ("anyhow", "src/cli"),
    ];
    let mut broken = Vec::new();
    for (path, text) in sources("src") {
        for (number, line) in code(&text) {
            for (name, home) in homes {
                let own = format!("::{name}");
                let line = without_text(line);
                // The benchmark's raw baselines speak to a service without our own layers.
                let baseline = home == "src/read_model" && path.starts_with("src/bench");
                // The auditor reads the log and the stores without the layers that it checks.
                let audit = ["src/read_model", "src/codec"].contains(&home)
                    && path.starts_with("src/audit");
                if baseline || audit {
                    continue;
                }
                if line.contains(name) && !line.contains(&own) && !path.starts_with(home) {
                    broken.push(format!("{}:{number}: {name} lives in {home}", path.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn unsafe_code_has_one_home() {
    let mut broken = Vec::new();
    for (path, text) in sources("src") {
        if path == Path::new("src/log/kafka/ffi.rs") {
            continue;
        }
        let lines = code(&text).filter(|(_, line)| line.contains("unsafe"));
        broken.extend(lines.map(|(number, _)| format!("{}:{number}", path.display())));
    }
    assert!(broken.is_empty(), "unsafe outside log/kafka/ffi.rs:\n{}", broken.join("\n"));
}

#[test]
fn files_stay_small_and_lines_short() {
    let mut broken = Vec::new();
    for folder in ["src", "tests"] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            if lines > FILE_LINES_MAX {
                broken.push(format!("{}: {lines} lines", path.display()));
            }
            for (index, line) in text.lines().enumerate() {
                let width = line.chars().count();
                if width > WIDTH_MAX {
                    broken.push(format!("{}:{}: {width} wide", path.display(), index + 1));
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_module_says_what_it_is() {
    let mut broken = Vec::new();
    for (path, text) in sources("src") {
        if !text.starts_with("//! ") {
            broken.push(path.display().to_string());
        }
    }
    assert!(broken.is_empty(), "no module docs:\n{}", broken.join("\n"));
}

#[test]
fn nothing_is_left_undone_or_unnamed() {
    // Split, so that this file does not find itself.
    let words = [
        concat!("to", "do!"),
        concat!("unimpl", "emented!"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("#[ign", "ore"),
    ];
    for folder in ["src", "tests"] {
        forbid(folder, &words, "finish it");
    }
    let names = ["utils", "common", "helpers"];
    for (path, _) in sources("src") {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(!names.contains(&stem.as_str()), "{}: what is it about?", path.display());
    }
}
