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
    /// A syncing replica that has met its owner lets the witness take over.
    MetLetsTakeOver,
    /// A replica that let the witness take over hears its owner all the same.
    LetGoesOn,
    /// A replica that has left a term still acks the owner it left.
    FencedIsAcked,
    /// An owner that has handed over stamps and shows on.
    SealedGoesOn,
    /// A new owner shows what it inherited before its replica has met it.
    ShownBeforeMet,
    /// What may have been shown before counts as held by the replica.
    ShownUncopied,
    /// A new owner begins with the log it happens to have.
    NewOwnerWithoutLog,
    /// What an owner hands over as shown leaves out what it had inherited as shown.
    InheritanceForgotten,
    /// A replica that missed a term counts as whole in the next one.
    SkippedCountsAsWhole,
    /// A replica whose log has a hole drops what it holds behind it when the term changes.
    TailDropped,
    /// At the heal, the losing side goes over without handing in its frames.
    HealForgets,
}

impl Flaw {
    /// All of them.
    pub(crate) const ALL: [Flaw; 17] = [
        Flaw::ReleasedBeforeAck,
        Flaw::OldAckCounts,
        Flaw::VotesTwice,
        Flaw::RestartedVotes,
        Flaw::TakeoverAlone,
        Flaw::SyncingTakesOver,
        Flaw::MetLetsTakeOver,
        Flaw::LetGoesOn,
        Flaw::FencedIsAcked,
        Flaw::SealedGoesOn,
        Flaw::ShownBeforeMet,
        Flaw::ShownUncopied,
        Flaw::NewOwnerWithoutLog,
        Flaw::InheritanceForgotten,
        Flaw::SkippedCountsAsWhole,
        Flaw::TailDropped,
        Flaw::HealForgets,
    ];

    /// Whether it listens to what the rules let nobody listen to any more.
    pub(crate) fn heeds_the_past(self) -> bool {
        match self {
            Flaw::OldAckCounts | Flaw::VotesTwice | Flaw::RestartedVotes | Flaw::FencedIsAcked => true,
            Flaw::ReleasedBeforeAck
            | Flaw::TakeoverAlone
            | Flaw::SyncingTakesOver
            | Flaw::MetLetsTakeOver
            | Flaw::LetGoesOn
            | Flaw::SealedGoesOn
            | Flaw::ShownBeforeMet
            | Flaw::ShownUncopied
            | Flaw::NewOwnerWithoutLog
            | Flaw::InheritanceForgotten
            | Flaw::SkippedCountsAsWhole
            | Flaw::TailDropped
            | Flaw::HealForgets => false,
        }
    }
}
