//! The adapter from its public side: the ledger, and servers over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod admin;
mod amended;
mod binary;
mod cluster_status;
mod crd;
mod envoy;
mod examples;
mod explain;
mod faulty_shard;
mod grpc;
mod http;
mod kubernetes;
mod ledger;
mod ledger_model;
mod listener_sets;
mod one_language;
mod operators;
mod page;
mod plans;
mod redis;
mod redis_cluster;
mod restarted;
mod secrets;
mod server;
mod sharded;
mod spans;
mod sqlite;
mod sqlite_kills;
mod storages;
mod stored;
mod stream;
mod usage_records;
mod warnings;
mod watching;
mod webhook;
