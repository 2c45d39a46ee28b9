//! Integration tests of the app, in one binary.
//!
//! Helpers: `service` (the built program as a process), `http` (a client), `ini` (configuration files), `town` (what
//! the service meets on loopback), `gate` (a town behind a gateway), `alone` (a process for one test). Every other
//! file plays one part of the contract as a user would.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which may panic as tests do")]

mod access;
mod alone;
mod api_document;
mod check;
mod commands;
mod config_differential;
mod contract_feedback;
mod contract_handouts;
mod contract_on_postgres;
mod contract_operators;
mod contract_stats;
mod curl;
mod dashboard;
mod demo;
mod explain;
mod feed_yields;
mod feeds;
mod full_disk;
mod gate;
mod gateway_attacks;
mod gateway_clients;
mod gateway_curl;
mod gateway_docs;
mod gateway_failures;
mod gateway_hostile;
mod gateway_modes;
mod http;
mod ini;
mod ini_author;
mod known;
mod lists;
mod outages;
mod patience;
mod persistence;
mod pool_probes;
mod postgres;
mod probe_limits;
mod probes;
mod probes_outages;
mod probes_zoo;
mod recovery;
mod replay;
mod second_instance;
mod service;
mod special;
mod town;
