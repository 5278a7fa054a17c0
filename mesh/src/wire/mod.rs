//! What travels between nodes: link frames (`header`, `control`) and the application's messages (`message`, `direct`,
//! `presence`, `request`, `sockets`, `survey`).
//!
//! Invariants: pure, total decoders; no allocation beyond a stated limit whatever a length claims; bodies are never changed
//! in place, only new types and versions are added (`mesh.md` 2.5).

pub mod address;
pub(crate) mod control;
pub mod direct;
pub(crate) mod header;
pub mod message;
pub mod presence;
pub mod request;
pub mod sockets;
pub mod survey;
pub mod triple;
