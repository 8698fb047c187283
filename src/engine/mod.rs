//! The loops, as state machines without I/O: inputs -> step -> actions.
