//! Single cases, each with a name: what a model of the rules once showed to be dangerous.

mod delivery;
mod projection;
mod sagas;
mod stage;
mod turns;
