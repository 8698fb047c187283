//! millrace turns Kafka into an event store with read models that can be trusted.

pub mod kernel;

pub mod domain;

pub mod codec;

pub mod engine;

pub mod log;

pub mod state;

pub mod read_model;

pub mod runtime;

pub mod audit;

pub mod rebuild;

pub mod reading;

pub mod service;
pub mod topology;

pub mod http;

pub mod bench;

pub mod cli;

pub mod clock;
pub mod config;
pub mod telemetry;
pub mod topics;
