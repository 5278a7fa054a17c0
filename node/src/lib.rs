//! A Starling node: the gateway that Socket.IO clients connect to, and that forms a cluster with its like.
//!
//! How to read it, in one sitting: `gateway` (what a shard does: join, leave, publish, read history) → `gateway/fanout`
//! (the hot path) → `room` and `outbox` (a room's turn, and who lags) → `shard` and `run` (the loop around it) → `server` and
//! `transport` (how clients get in) → `handler` and `builtin` (what is done with events) → `peers` (what other nodes say) → `forward`
//! (clients whose session is elsewhere) → `app` (start and stop).
//!
//! Invariants:
//! - threads share nothing but `Context`; they exchange messages (`message`, `mailbox`);
//! - one shard owns a connection, its memberships and the slots `slot % shards == shard`; nothing of it is locked;
//! - protocol, mesh and persistence do not know each other: this crate composes them.

pub mod api;
pub mod app;
pub mod assets;
pub mod cli;
pub mod config;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod handler;
pub mod metrics;
pub mod policy;

mod addresses;
mod admission;
mod archive;
mod builtin;
mod clock;
mod cluster;
mod cluster_key;
mod conduct;
mod connection;
mod context;
mod envelope;
mod forward;
mod gateway;
mod key;
mod mailbox;
mod memory;
mod message;
mod names;
mod orders;
mod outbox;
mod peers;
mod pressure;
mod rate;
mod room;
mod run;
mod server;
mod shard;
mod sid_keys;
mod tally;
mod tls;
mod transport;
mod wire;
