//! A projection built anew beside the one in use: log -> another generation of tables -> compared
//! with the log -> put in its place in one step, while everything runs.
//!
//! ```text
//! lock -> generation -> fill (own group) -> at the log's end -> audit -> switch -> handed over
//! ```
//!
//! Guarantees: users see one generation whole, then the other whole; the other has everything that
//! they have seen. What was in use stays, until it is dropped, for a roll-back: that fills it up
//! from where it stopped, compares it too, and switches back, so that nobody is shown what is old.
//! A process that is killed leaves the generation as far as it is; the next one goes on there.

mod fill;
mod hand_over;
mod steps;

use std::sync::Arc;

use serde::Serialize;

use crate::audit::difference::Compared;
use crate::audit::{self, Difference, Report};
use crate::config::Config;
use crate::log::kafka;
use crate::read_model::store;
use crate::runtime::{projection, schemas};

pub use steps::{Projected, run};

/// What is to be done with a projection's generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Build another one and put it in use.
    Rebuild {
        /// Whether one that is half built is built from the beginning.
        start_over: bool,
    },
    /// Return to the one that was in use before.
    RollBack,
    /// Drop those that were in use before.
    DropOld,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub enum Step {
    /// Events become rows.
    Building {
        /// The generation.
        generation: i32,
        /// Offsets that are done.
        done: u64,
        /// Offsets in all.
        of: u64,
        /// Events that have become rows.
        events: u64,
    },
    /// Rows are compared with the log.
    Verifying {
        /// The generation.
        generation: i32,
        /// Offsets of this partition that are done.
        done: u64,
        /// Offsets of this partition.
        of: u64,
    },
    /// The views are about to show the generation.
    Switching {
        /// The generation.
        generation: i32,
    },
    /// The views show it; what runs goes over to it.
    #[serde(rename = "handing over")]
    HandingOver {
        /// The generation.
        generation: i32,
    },
}

/// Is told how far it is.
pub type Told = Arc<dyn Fn(Step) + Send + Sync>;

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The projection.
    pub projection: String,
    /// The generation that is in use now.
    pub generation: i32,
    /// The one that was before; it is kept.
    pub previous: Option<i32>,
    /// Generations that were dropped.
    pub dropped: Vec<i32>,
    /// Whether it went on where a rebuild was broken off.
    pub resumed: bool,
    /// Events that became rows.
    pub events: u64,
    /// How long that took, up to the log's end.
    pub build_ms: u64,
    /// Events a second meanwhile.
    pub rate: u64,
    /// What was compared with the log.
    pub compared: Option<Compared>,
    /// Streams that could not be applied, as in the generation before.
    pub parked: Vec<String>,
    /// How long the switch took.
    pub switch_ms: u64,
    /// How long whoever writes the rows held still for it; readers never do.
    pub held_ms: u64,
    /// Whether what ran has gone over to it; nothing ran if `None`.
    pub handed_over: Option<bool>,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A store does not answer, or refuses.
    #[error("cannot change the generations")]
    Store(#[from] store::Error),
    /// The log cannot be read.
    #[error("cannot read the log")]
    Kafka(#[from] kafka::Error),
    /// Topics or groups cannot be asked about.
    #[error("cannot ask the brokers")]
    Admin(#[from] kafka::topic::Error),
    /// The rows cannot be compared with the log.
    #[error("cannot verify the new generation")]
    Audit(#[from] audit::Error),
    /// The events' schemas cannot be found out.
    #[error("cannot load the schemas")]
    Schemas(#[from] schemas::Error),
    /// The projection cannot start.
    #[error("cannot fill the generation")]
    Projection(#[from] projection::Error),
    /// What was asked for cannot be done now; says why, and what to do.
    #[error("{0}")]
    Refused(String),
    /// The new generation is not what the log says: it is not put in use.
    #[error(
        "generation {generation} of {projection} differs from the log in {} places and is not put \
         in use: mend the cause, then run `millrace rebuild {projection} --start-over`",
        .report.differences.len()
    )]
    Differs {
        /// The projection.
        projection: String,
        /// Its new generation.
        generation: i32,
        /// What differs.
        report: Box<Report>,
    },
    /// A task broke.
    #[error("the work was cut short")]
    Cut,
}

impl Error {
    /// What differs from the log, if that is the reason.
    #[must_use]
    pub fn differences(&self) -> &[Difference] {
        match self {
            Self::Differs { report, .. } => &report.differences,
            Self::Store(_)
            | Self::Kafka(_)
            | Self::Admin(_)
            | Self::Audit(_)
            | Self::Schemas(_)
            | Self::Projection(_)
            | Self::Refused(_)
            | Self::Cut => &[],
        }
    }
}

/// What a rebuild works with.
pub struct Means<'a> {
    /// The settings.
    pub config: &'a Config,
    /// How events become batches.
    pub settings: projection::Settings,
    /// Finds out about schemas that are not known yet.
    pub look_up: crate::runtime::lane::SchemaLookUp,
    /// Is told how far it is.
    pub told: Told,
}
