//! What can go wrong in the mesh, one enum per operation.
//!
//! Invariants: every variant says what happened to state and what the caller may do.

use std::net::SocketAddr;

use crate::NodeId;

/// The cluster key is unusable; nothing was created.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// Fewer than 32 bytes remain after trimming white space. Make a longer one.
    #[error("the cluster key has {0} bytes, it needs at least 32")]
    TooShort(usize),
    /// One byte repeated: a placeholder, not a secret.
    #[error("the cluster key is one byte repeated; use random bytes")]
    Weak,
}

/// [`crate::bind`] failed; nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The UDP socket could not be had. Another process may own the port.
    #[error("cannot bind the mesh to {address}: {source}")]
    Socket {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Certificates could not be made from the cluster key; a defect of this build.
    #[error("cannot derive certificates from the cluster key: {0}")]
    Certificate(String),
    /// [`crate::bind`] was called outside a tokio runtime.
    #[error("the mesh needs a tokio runtime")]
    NoRuntime,
}

/// [`crate::Driver::run`] ended for a reason other than being told to; all links are closed. The process should exit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RunError {
    /// A process with our ordinal and a higher generation is in the cluster; it is the node now, we are not.
    #[error("this node was started twice: {reason}")]
    Superseded {
        /// Our ordinal.
        node: NodeId,
        /// Who says so, where both processes are, and what to do.
        reason: String,
    },
    /// A process with our ordinal and a lower generation is in the cluster and answers: it stays the node, so that two that
    /// are both restarted whenever they end do not take turns.
    #[error("this node was started twice: {reason}")]
    Twin {
        /// Our ordinal.
        node: NodeId,
        /// Who says so, where both processes are, and what to do.
        reason: String,
    },
    /// The cluster knows an edition of this very process start that we never announced: another process has our ordinal
    /// and our generation.
    #[error("node {node} is announced as edition {edition}, which is not ours: this node name is started twice")]
    StartedTwice {
        /// Our ordinal.
        node: NodeId,
        /// What the other process announced.
        edition: u16,
    },
}

/// [`crate::Mesh::rotate`] failed; the keys are the old ones.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RotateError {
    /// Certificates could not be made from the keys; a defect of this build.
    #[error("cannot derive certificates from the cluster keys: {0}")]
    Certificate(String),
    /// The driver has ended or never ran.
    #[error("the mesh does not run")]
    Ended,
}

/// A frame was not queued; nothing was sent. Repeating is safe.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum SendError {
    /// There is no link to that node now, or it is ourselves, or the lane does not exist. Wait for `LinkUp`.
    #[error("no link to that node")]
    NoLink,
    /// The lane holds [`crate::LANE_SOFT_BYTES`] or more. Slow down, try later.
    #[error("the lane to that node is full")]
    Full,
    /// The frame is larger than [`crate::MAX_FRAME`]. It will never fit.
    #[error("the frame is larger than a lane takes")]
    TooLarge,
}

/// Some frames of a batch were not queued; the others were.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{} frames of the batch were not queued", failures.len())]
pub struct BatchError {
    /// Index in the batch and why, ascending.
    pub failures: Vec<(usize, SendError)>,
}

/// A request brought no answer. Whether the peer acted on it is unknown except where said.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum RequestError {
    /// No link to that node; the peer saw nothing.
    #[error("no link to that node")]
    NoLink,
    /// Too many requests wait for that peer already; the peer saw nothing.
    #[error("too many requests are waiting for that node")]
    Full,
    /// The body is larger than [`crate::MAX_REQUEST`]; the peer saw nothing.
    #[error("the request is larger than the limit")]
    TooLarge,
    /// The peer dropped the request or its answer was too large.
    #[error("the node refused to answer")]
    Refused,
    /// No answer in time.
    #[error("the node did not answer in time")]
    Timeout,
    /// The link broke meanwhile.
    #[error("the link broke before the answer")]
    LinkLost,
}
