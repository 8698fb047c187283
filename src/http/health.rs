//! How each component of this process is: set by the component, shown at `/readyz`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::clock;

/// Whether a component does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// Not yet.
    Starting,
    /// Yes.
    Ready,
    /// It waits for something that is away.
    Waiting,
    /// It has stopped for good.
    Failed,
}

/// How one partition of a component is.
#[derive(Clone, Debug, Serialize)]
pub struct Partition {
    /// The topic that it reads.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// What it is doing: `restoring 43 %`, `running`, `waiting`, `stopped` ...
    pub state: String,
    /// Transactions a second, over the last few.
    pub transactions_per_second: u64,
    /// The last thing that went wrong; what is waited for, if that is its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Component {
    state: Readiness,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    since: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    partitions: Vec<Partition>,
}

/// What `/readyz` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether there are components, and all are ready.
    pub ready: bool,
    components: BTreeMap<String, Component>,
}

/// The states of all components, shared between them.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, Component>>>);

impl Health {
    /// Says how a component is, and anything that people should know about it.
    pub fn set(&self, component: &str, state: Readiness, detail: impl Into<String>) {
        let mut components = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = components.get(component).filter(|known| known.state == state);
        let since = known.map_or_else(|| clock::now().to_rfc3339(), |known| known.since.clone());
        let detail = detail.into();
        let partitions = components.remove(component).map(|known| known.partitions);
        let partitions = partitions.unwrap_or_default();
        components.insert(component.to_owned(), Component { state, detail, since, partitions });
    }

    /// Says how the partitions of a component are, which must be known already.
    pub fn set_partitions(&self, component: &str, partitions: Vec<Partition>) {
        let mut components = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(component) = components.get_mut(component) {
            component.partitions = partitions;
        }
    }

    /// A component's state and detail, for whoever watches the process itself.
    #[must_use]
    pub fn details(&self) -> Vec<(String, Readiness, String)> {
        let components = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = components.iter();
        all.map(|(name, component)| (name.clone(), component.state, component.detail.clone()))
            .collect()
    }

    /// Every component's state at this moment.
    #[must_use]
    pub fn report(&self) -> Report {
        let components = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all = components.values().all(|component| component.state == Readiness::Ready);
        Report { ready: all && !components.is_empty(), components }
    }
}
