//! What travels between nodes: link frames (`header`, `control`) and the application's messages (`message`, `direct`,
//! `forward`, `presence`, `request`, `sockets`, `survey`).
//!
//! Invariants: pure, total decoders; no allocation beyond a stated limit whatever a length claims; bodies are never changed
//! in place, only new types and versions are added (`mesh.md` 2.5). The first byte of what travels in a lane is its kind, and no
//! two are alike: 0x20 room frame, 0x21 control (`message`), 0x22 `direct`, 0x23 and 0x24 `survey`, 0x25 a frame to keep (`triple`).

pub mod address;
pub(crate) mod control;
pub mod direct;
pub mod forward;
pub(crate) mod header;
pub mod message;
pub mod presence;
pub mod request;
pub mod sockets;
pub mod survey;
pub mod triple;
