//! The two stacks are one: `docker-compose.yml` names the services, versions and users that
//! `ops/local` starts as plain processes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where its expectation ends, and says what it saw"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_yaml_ng::{Mapping, Value};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn compose() -> Value {
    serde_yaml_ng::from_str(&read("docker-compose.yml")).unwrap()
}

fn services(compose: &Value) -> BTreeMap<&str, &Mapping> {
    let services = compose["services"].as_mapping().unwrap();
    services
        .iter()
        .map(|(name, service)| (name.as_str().unwrap(), service.as_mapping().unwrap()))
        .collect()
}

/// `NAME=value` lines of `ops/local/versions.env`.
fn local_versions() -> BTreeMap<String, String> {
    read("ops/local/versions.env")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// An image's name and its tag.
fn image(service: &Mapping) -> (&str, &str) {
    let image = service["image"].as_str().unwrap();
    image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag"))
}

fn texts<'a>(service: &'a Mapping, key: &str) -> Vec<&'a str> {
    let list = service.get(key).and_then(Value::as_sequence);
    list.map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

#[test]
fn both_stacks_have_the_same_services() {
    let compose = compose();
    let script = read("ops/local/services.sh");
    let line = script.lines().find_map(|line| line.strip_prefix("SERVICES=(")).unwrap();
    let local: BTreeSet<&str> = line.trim_end_matches(')').split_whitespace().collect();
    let containers: BTreeSet<&str> = services(&compose).into_keys().collect();
    assert_eq!(local, containers);
}

#[test]
fn both_stacks_have_the_same_versions() {
    let compose = compose();
    let services = services(&compose);
    let versions = local_versions();
    assert_eq!(image(services["kafka"]), ("apache/kafka", versions["KAFKA_VERSION"].as_str()));
    let registry = ("apicurio/apicurio-registry", versions["REGISTRY_VERSION"].as_str());
    assert_eq!(image(services["registry"]), registry);

    // Debian and the image follow Postgres's minor releases each in its own time.
    let (name, tag) = image(services["postgres"]);
    assert_eq!(name, "postgres");
    assert_eq!(tag.split('.').next(), Some(versions["POSTGRES_VERSION"].as_str()));

    let (name, tag) = image(services["clickhouse"]);
    assert_eq!(name, "clickhouse/clickhouse-server");
    let minor: Vec<&str> = tag.split('.').take(2).collect();
    assert_eq!(minor.join("."), versions["CLICKHOUSE_VERSION"]);
}

#[test]
fn the_wheel_holds_the_declared_clickhouse() {
    let versions = local_versions();
    let wheel = &versions["CHDB_CORE_VERSION"];
    assert!(wheel.starts_with(&format!("{}.", versions["CLICKHOUSE_VERSION"])), "{wheel}");
    let requirements = read("ops/local/clickhouse/requirements.txt");
    assert!(requirements.contains(&format!("chdb-core=={wheel} ")), "{requirements}");
    assert!(requirements.contains("--hash=sha256:"), "{requirements}");
}

#[test]
fn every_container_is_pinned_watched_and_limited() {
    let compose = compose();
    let volumes = compose["volumes"].as_mapping().unwrap();
    for (name, service) in services(&compose) {
        let (_, tag) = image(service);
        let exact = tag.contains('.') && tag.split('.').all(|part| part.parse::<u32>().is_ok());
        assert!(exact, "{name}: {tag} is no exact version");

        let check = service.get("healthcheck").and_then(|check| check.get("test"));
        assert!(check.and_then(Value::as_sequence).is_some(), "{name} has no health check");

        assert!(service.contains_key("mem_limit"), "{name} has no memory limit");

        let kept = texts(service, "volumes")
            .iter()
            .filter_map(|volume| volume.split_once(':'))
            .any(|(volume, _)| volumes.contains_key(volume));
        assert!(kept, "{name} has no volume");

        for port in texts(service, "ports") {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port} is open to the network");
        }
    }
}

#[test]
fn a_container_waits_until_what_it_needs_is_healthy() {
    let compose = compose();
    let services = services(&compose);
    assert_eq!(services["registry"]["depends_on"]["kafka"]["condition"], "service_healthy");
    for (name, service) in &services {
        let Some(needed) = service.get("depends_on") else { continue };
        let needed = needed.as_mapping().unwrap_or_else(|| panic!("{name} waits for no condition"));
        for (other, how) in needed {
            assert_eq!(how["condition"], "service_healthy", "{name} -> {other:?}");
        }
    }
}

#[test]
fn both_stacks_have_the_same_clickhouse_users() {
    let compose = compose();
    let users = "./ops/local/clickhouse/users.xml:/etc/clickhouse-server/users.xml:ro";
    assert!(texts(services(&compose)["clickhouse"], "volumes").contains(&users));
    assert!(read("ops/local/clickhouse.sh").contains("--users \"$LOCAL/clickhouse/users.xml\""));

    let xml = read("ops/local/clickhouse/users.xml");
    for user in ["default", "millrace", "analyst"] {
        assert!(xml.contains(&format!("        <{user}>\n            <password>")), "{user}");
    }
}

#[test]
fn both_stacks_create_the_same_postgres_role() {
    let compose = compose();
    let volumes = texts(services(&compose)["postgres"], "volumes");
    let script = "./ops/local/postgres/init.sql:";
    assert!(volumes.iter().any(|volume| volume.starts_with(script)), "{volumes:?}");
    assert!(read("ops/local/postgres.sh").contains("-f \"$LOCAL/postgres/init.sql\""));
}

/// The broker's settings, as `server.properties` has them and as the image's variables spell them.
#[test]
fn both_brokers_have_the_same_settings() {
    let compose = compose();
    let environment = services(&compose)["kafka"]["environment"].as_mapping().unwrap();
    // Addresses and folders differ by nature, and the plain process has a quorum that can grow.
    let own = ["listener", "controller.quorum", "log.dirs", "process.roles", "node.id", "num."];
    let properties = read("ops/local/kafka/server.properties");
    // Containers run one broker.
    let properties = properties.replace("@COPIES@", "1").replace("@COPIES_MIN@", "1");
    let mut compared = 0;
    for line in properties.lines().filter(|line| !line.starts_with('#')) {
        let Some((key, value)) = line.split_once('=') else { continue };
        if own.iter().any(|own| key.contains(own)) && key.matches(".num.").count() == 0 {
            continue;
        }
        let variable = format!("KAFKA_{}", key.replace('.', "_").to_uppercase());
        let other = environment.get(variable.as_str()).unwrap_or_else(|| panic!("no {variable}"));
        let other = other.as_str().map_or_else(
            || other.as_u64().map(|number| number.to_string()).unwrap_or_default(),
            str::to_owned,
        );
        assert_eq!(other, value, "{variable}");
        compared += 1;
    }
    assert!(compared > 10, "only {compared} settings were compared");
}
