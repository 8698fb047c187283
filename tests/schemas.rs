//! Schemas against the real registry and the real Kafka.

#![expect(clippy::expect_used, reason = "a test's expectations")]

use std::sync::Arc;

use millrace::codec::banking::AccountCodec;
use millrace::codec::compatibility;
use millrace::codec::compiled::{self, Level};
use millrace::codec::registry::{Error, Registry};
use millrace::codec::schemas::{Lookup, Schemas};
use millrace::config::Config;
use millrace::kernel::codec::{Codec, CodecError};
use millrace::kernel::stream::Namespace;
use millrace::log::kafka::topic::Admin;
use millrace::runtime::schemas;

/// An installation of its own: a namespace with the one topic that schemas need.
struct Installation {
    config: Config,
    admin: Admin,
    topic: String,
}

impl Installation {
    async fn new(name: &str) -> Self {
        let mut config = Config::load().expect("settings");
        let own = format!("{name}{}", std::process::id());
        config.namespace = Namespace::new(&own).expect("a namespace");
        let admin = Admin::connect(&config.kafka)
            .await
            .expect("no Kafka answers: start the services with `ops/stack up` or `ops/test`");
        let topic = config.namespace.dotted(schemas::TOPIC);
        let declared = millrace::topics::declared(&config.namespace).expect("declared topics");
        let wanted: Vec<_> = declared.into_iter().filter(|one| one.name == topic).collect();
        assert_eq!(wanted.len(), 1);
        admin.create(&wanted).await.expect("the topic can be created");
        Self { config, admin, topic }
    }

    fn registry(&self) -> Registry {
        Registry::new(&self.config.registry.url).expect("a client")
    }

    async fn remove(self) {
        self.admin.delete(&[&self.topic]).await.expect("the topic can be deleted");
    }
}

const NOWHERE: &str = "http://127.0.0.1:1/apis/ccompat/v7";

#[tokio::test(flavor = "multi_thread")]
async fn a_start_needs_the_registry_only_until_the_ids_are_known() {
    let installation = Installation::new("schemasa").await;
    let config = &installation.config;

    let Err(error) = schemas::load(config).await else { panic!("nothing is registered yet") };
    assert!(error.to_string().contains("run `millrace schemas register`"), "{error}");
    let mut alone = config.clone();
    alone.registry.url = NOWHERE.to_owned();
    let Err(error) = schemas::load(&alone).await else { panic!("nobody knows the ids") };
    assert!(error.to_string().contains("millrace schemas register"), "{error}");

    let written = schemas::register(config).await.expect("registered");
    let count: usize =
        compiled::subjects(&config.namespace).iter().map(|subject| subject.versions.len()).sum();
    assert_eq!(written.len(), count);
    // One schema under several subjects (every aggregate's results) has one id, and one entry.
    let ids: std::collections::BTreeSet<u32> = written.iter().map(|(id, _)| *id).collect();
    assert_eq!(schemas::entries(config).await.expect("read").len(), ids.len());
    assert_eq!(schemas::register(config).await.expect("again"), written);

    let known = schemas::load(&alone).await.expect("the registry is not needed any more");
    assert!(known.without_id().is_empty());
    for (id, entry) in &written {
        let Lookup::Known(writer) = known.lookup(*id) else { panic!("{id} is known") };
        assert!(entry.subject.ends_with(&writer.record));
    }
    installation.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_topic_does_not_hold_is_asked_of_the_registry() {
    let installation = Installation::new("schemasb").await;
    let (config, registry) = (&installation.config, installation.registry());
    for subject in compiled::subjects(&config.namespace) {
        for own in subject.versions {
            registry.register(&subject.name, own.source.text).await.expect("registered");
        }
    }
    assert!(schemas::entries(config).await.expect("read").is_empty());
    let known = schemas::load(config).await.expect("the registry knows them");
    assert!(known.without_id().is_empty());
    installation.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_keeps_what_it_was_given_and_refuses_what_breaks() {
    let installation = Installation::new("schemasc").await;
    let registry = installation.registry();
    schemas::register(&installation.config).await.expect("registered");
    for subject in compiled::subjects(&installation.config.namespace) {
        let versions = registry.versions(&subject.name).await.expect("versions");
        assert_eq!(versions.len(), subject.versions.len(), "{}", subject.name);
        for (registered, own) in versions.iter().zip(&subject.versions) {
            assert_eq!(compiled::fingerprint(&registered.text).as_ref(), Ok(&own.fingerprint));
            let text = registry.schema(registered.id).await.expect("an answer").expect("a schema");
            assert_eq!(compiled::fingerprint(&text).as_ref(), Ok(&own.fingerprint));
        }
    }
    let event = "millrace.banking.account.MoneyDeposited";
    let topic = installation.config.namespace.dotted("banking.account.events");
    let subject = format!("{topic}-{event}");
    let place = compiled::current(event).expect("it is compiled in");
    let breaking = compiled::all()[place].source.text.replace(
        r#"{"name": "reference""#,
        r#"{"name": "channel", "type": "string", "doc": "New."}, {"name": "reference""#,
    );
    let found =
        compatibility::check(Level::FullTransitive, compiled::all()[place].source.text, &breaking);
    assert_eq!(found[0].field.as_deref(), Some("channel"));
    let refused = registry.register(&subject, &breaking).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    assert!(registry.subjects().await.expect("subjects").contains(&subject));
    installation.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_none_and_nobody_answers_are_two_things() {
    let installation = Installation::new("schemasd").await;
    let registry = installation.registry();
    let absent = 2_000_000_000;
    assert_eq!(registry.schema(absent).await.expect("an answer"), None);
    assert!(registry.versions("no.such-subject").await.expect("an answer").is_empty());

    let nobody = Registry::new(NOWHERE).expect("a client").schema(absent).await;
    assert!(matches!(nobody, Err(Error::Unreachable { .. })), "{nobody:?}");
    let wrong = installation.config.registry.url.replace("/apis/ccompat/v7", "/nothing");
    let strange = Registry::new(&wrong).expect("a client").schema(absent).await;
    assert!(strange.is_err(), "another server's 404 says nothing about schemas: {strange:?}");

    let known = Arc::new(Schemas::default());
    let mut config = installation.config.clone();
    config.registry.url = NOWHERE.to_owned();
    assert!(schemas::look_up(&config, &known, absent).await.is_err());
    assert!(matches!(known.lookup(absent), Lookup::Unknown));
    schemas::look_up(&installation.config, &known, absent).await.expect("an answer");
    assert!(matches!(known.lookup(absent), Lookup::Missing));
    installation.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_versions_events_can_be_read_once_the_registry_was_asked() {
    let installation = Installation::new("schemase").await;
    let config = &installation.config;
    schemas::register(config).await.expect("registered");
    let known = schemas::load(config).await.expect("known");
    let topic = config.namespace.dotted("banking.account.events");
    let event = "millrace.banking.account.AccountFrozen";
    let place = compiled::current(event).expect("it is compiled in");
    let newer = compiled::all()[place].source.text.replace(
        r#""fields": ["#,
        r#""fields": [{"name": "until", "type": "long", "default": 0, "doc": "New."},"#,
    );
    let registry = installation.registry();
    let id = registry.register(&format!("{topic}-{event}"), &newer).await.expect("compatible");

    let codec = AccountCodec::new(Arc::clone(&known));
    let mut value = vec![0];
    value.extend_from_slice(&id.to_be_bytes());
    value.extend_from_slice(b"\x02\x02u\x06USD\x00");
    assert_eq!(codec.decode_event(&value), Err(CodecError::UnknownSchema(id)));
    schemas::look_up(config, &known, id).await.expect("an answer");
    let read = codec.decode_event(&value).expect("readable");
    assert_eq!((read.name(), read.user_id()), ("AccountFrozen", "u"));
    installation.remove().await;
}
