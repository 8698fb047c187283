//! A client to any Confluent-compatible schema registry.
