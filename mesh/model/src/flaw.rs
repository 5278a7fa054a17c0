//! Mistakes that are easily made: the search has to find each, or it proves nothing.
//!
//! Invariant: a flaw changes one rule and nothing else.

/// One mistake in the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The owner shows a frame before its replica holds it.
    ReleasedBeforeAck,
    /// An ack under the old triple counts under the new one.
    OldAckCounts,
    /// A member votes for everybody who asks.
    VotesTwice,
    /// A restarted node takes the seat that it had.
    RestartedVotes,
    /// The replica takes over without the witness.
    TakeoverAlone,
    /// The replica takes over before it has the whole log.
    SyncingTakesOver,
    /// A replica that has left a term still acks the owner it left.
    FencedIsAcked,
    /// An owner that has handed over stamps and shows on.
    SealedGoesOn,
    /// A new owner shows what it inherited before its replica has met it.
    ShownBeforeMet,
    /// A new owner begins with the log it happens to have.
    NewOwnerWithoutLog,
    /// At the heal, the losing side goes over without handing in its frames.
    HealForgets,
}

impl Flaw {
    /// All of them.
    pub(crate) const ALL: [Flaw; 11] = [
        Flaw::ReleasedBeforeAck,
        Flaw::OldAckCounts,
        Flaw::VotesTwice,
        Flaw::RestartedVotes,
        Flaw::TakeoverAlone,
        Flaw::SyncingTakesOver,
        Flaw::FencedIsAcked,
        Flaw::SealedGoesOn,
        Flaw::ShownBeforeMet,
        Flaw::NewOwnerWithoutLog,
        Flaw::HealForgets,
    ];
}
