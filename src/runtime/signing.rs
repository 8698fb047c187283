//! What stages of ours send to each other: the key that signs it, and where it goes.

use std::collections::BTreeMap;
use std::sync::{Arc, Once};

use ring::{digest, hmac};

use crate::config::Config;
use crate::engine::dispatch::{Target, Targets};
use crate::kernel::stream::{AggregateName, Kind};
use crate::log::kafka::Error;
use crate::log::kafka::group::Witness;

/// The key that signs origins: the setting's, else one that the cluster's id gives.
#[must_use]
pub fn internal_key(config: &Config, cluster_id: &str) -> hmac::Key {
    match &config.internal_key {
        Some(secret) => hmac::Key::new(hmac::HMAC_SHA256, secret.0.as_bytes()),
        None => {
            static WARNED: Once = Once::new();
            WARNED.call_once(|| {
                tracing::warn!(
                    "MILLRACE_INTERNAL_KEY is not set: origins are signed with a key that anybody \
                     can derive from the cluster id; set it in production"
                );
            });
            let text = format!("millrace internal key of cluster {cluster_id}");
            let derived = digest::digest(&digest::SHA256, text.as_bytes());
            hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
        }
    }
}

/// Where the commands of these aggregates go.
///
/// # Errors
/// A topic is missing, or the brokers do not answer.
pub fn targets(
    config: &Config,
    names: impl Iterator<Item = AggregateName>,
    witness: &Witness,
) -> Result<Targets, Error> {
    let mut targets = BTreeMap::new();
    for name in names {
        let topic: Arc<str> = config.namespace.dotted(&name.topic(Kind::Commands)).into();
        let partition_count = witness.partition_count(&topic)?;
        targets.insert(name, Target { topic, partition_count });
    }
    Ok(Targets::new(targets))
}
