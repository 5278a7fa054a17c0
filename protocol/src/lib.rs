//! The wire protocols of the gateway as plain values: Engine.IO v4 below, Socket.IO v5 above, and the session id that
//! ties a client's requests together.
//!
//! Invariants: nothing here reads a clock, opens a socket, spawns a task or makes randomness, so the node, the load
//! generator and the tests all drive the very same code. No input, however hostile, panics or allocates more than a
//! small multiple of its own size. Text payloads are slices of the bytes that arrived, never copies.

pub mod engine;
pub mod sid;
pub mod socket_id;
pub mod socketio;

pub use sid::{Sid, SidError, SidKey};
