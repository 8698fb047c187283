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

#[derive(Clone, Debug, Serialize)]
struct Component {
    state: Readiness,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    since: String,
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
        components.insert(component.to_owned(), Component { state, detail, since });
    }

    /// Takes a component out, when it has stopped as it should.
    pub fn remove(&self, component: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(component);
    }

    /// Every component's state at this moment.
    #[must_use]
    pub fn report(&self) -> Report {
        let components = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all = components.values().all(|component| component.state == Readiness::Ready);
        Report { ready: all && !components.is_empty(), components }
    }
}
