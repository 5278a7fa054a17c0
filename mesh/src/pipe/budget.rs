//! What the pipes of a link may have on the way, and how many there may be.
//!
//! Invariants: bytes are owed from before they are written until the peer said that it took them; what a pipe owes beyond
//! [`FREE`] is held of the budget of its use; a pipe that is dropped gives back what it held.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::{FREE, PipeUse, WINDOW};

/// Pipes of each use that a node may open to another: those that are questions, most of which wait, and those that last.
const BRIEF: usize = 2_048;
const LASTING: usize = 1_024;
/// Pipes a peer may have open.
pub(crate) const PIPES: usize = BRIEF + LASTING;
/// Bytes that all pipes of one use may owe beyond what is free.
const BUDGET: usize = 1 << 20;
/// Bytes that pipes may have on the way at worst, in one direction of one link.
pub(crate) const WORST: usize = 2 * BUDGET + PIPES * FREE;

const _: () = assert!(BUDGET >= 16 * WINDOW, "one pipe is a small part of the budget");

/// The pipes of one link, our side of it.
#[derive(Debug)]
pub(crate) struct Pipes {
    places: [Arc<Semaphore>; 2],
    budgets: [Arc<Semaphore>; 2],
}

impl Default for Pipes {
    fn default() -> Pipes {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Pipes { places: [BRIEF, LASTING].map(semaphore), budgets: [BUDGET; 2].map(semaphore) }
    }
}

impl Pipes {
    /// Room for one more that we open.
    pub(super) fn place(&self, what: PipeUse) -> Option<OwnedSemaphorePermit> {
        self.places[what as usize].clone().try_acquire_owned().ok()
    }

    /// What its bytes are held of.
    pub(super) fn budget(&self, what: PipeUse) -> Arc<Semaphore> {
        self.budgets[what as usize].clone()
    }
}

/// What one pipe owes.
#[derive(Debug)]
pub(super) struct Account {
    budget: Arc<Semaphore>,
    debt: Mutex<Debt>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct Debt {
    owed: usize,
    held: Option<OwnedSemaphorePermit>,
}

impl Account {
    pub(super) fn new(budget: Arc<Semaphore>) -> Account {
        Account { budget, debt: Mutex::default(), settled: Notify::new() }
    }

    /// Waits until so many more bytes may be on the way; they count as such then.
    pub(super) async fn owe(&self, bytes: usize) {
        while self.debt().owed + bytes > WINDOW {
            self.settled.notified().await;
        }
        let more = self.debt().lacking(bytes);
        // The budget is never closed.
        let permit = self.budget.clone().acquire_many_owned(more).await.ok();
        let mut debt = self.debt();
        debt.owed += bytes;
        match (&mut debt.held, permit) {
            (Some(held), Some(permit)) => held.merge(permit),
            (held, permit) => *held = permit,
        }
        debt.give_back();
    }

    /// The peer took bytes: as many as its frame says. False if that is nonsense.
    pub(super) fn settle(&self, body: &[u8]) -> bool {
        let Some(bytes) = body.try_into().ok().map(u32::from_be_bytes).and_then(|bytes| usize::try_from(bytes).ok())
        else {
            return false;
        };
        let mut debt = self.debt();
        if bytes == 0 || bytes > debt.owed {
            return false;
        }
        debt.owed -= bytes;
        debt.give_back();
        drop(debt);
        self.settled.notify_one();
        true
    }

    fn debt(&self) -> MutexGuard<'_, Debt> {
        // Every change is complete before anything that could panic.
        self.debt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Debt {
    fn held(&self) -> usize {
        self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// What has to be held besides if so many more bytes are owed. At most a window.
    fn lacking(&self, bytes: usize) -> u32 {
        let due = (self.owed + bytes).saturating_sub(FREE);
        u32::try_from(due.saturating_sub(self.held())).unwrap_or(u32::MAX)
    }

    /// Gives back what is held and not due.
    fn give_back(&mut self) {
        let surplus = self.held().saturating_sub(self.owed.saturating_sub(FREE));
        if let Some(held) = &mut self.held {
            drop(held.split(surplus));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::{Pin, pin},
        task::{Context, Waker},
    };

    use super::*;

    fn took(bytes: usize) -> [u8; 4] {
        u32::try_from(bytes).unwrap().to_be_bytes()
    }

    fn is_ready(owing: Pin<&mut impl Future<Output = ()>>) -> bool {
        owing.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_pipe_waits_for_its_window_and_holds_what_it_owes_beyond_what_is_free() {
        let budget = Arc::new(Semaphore::new(BUDGET));
        let account = Account::new(budget.clone());
        assert!(is_ready(pin!(account.owe(FREE))));
        assert_eq!(budget.available_permits(), BUDGET, "what is free is free");
        assert!(is_ready(pin!(account.owe(WINDOW - FREE))));
        assert_eq!(budget.available_permits(), BUDGET - (WINDOW - FREE));
        let mut next = pin!(account.owe(1));
        assert!(!is_ready(next.as_mut()));
        assert!(account.settle(&took(WINDOW - 10)));
        assert!(is_ready(next.as_mut()));
        assert_eq!(budget.available_permits(), BUDGET);
    }

    #[test]
    fn pipes_wait_for_their_common_budget_and_a_dropped_one_gives_back() {
        let budget = Arc::new(Semaphore::new(WINDOW));
        let [first, second] = [(), ()].map(|()| Account::new(budget.clone()));
        assert!(is_ready(pin!(first.owe(WINDOW))));
        let mut waiting = pin!(second.owe(WINDOW));
        assert!(!is_ready(waiting.as_mut()));
        drop(first);
        assert!(is_ready(waiting.as_mut()));
        assert_eq!(budget.available_permits(), FREE);
    }

    #[test]
    fn a_peer_takes_no_more_than_it_got() {
        let account = Account::new(Arc::new(Semaphore::new(BUDGET)));
        assert!(is_ready(pin!(account.owe(5))));
        for nonsense in [&took(6)[..], &took(0), &[0, 0, 1], &[]] {
            assert!(!account.settle(nonsense), "{nonsense:?}");
        }
        assert!(account.settle(&took(5)) && !account.settle(&took(1)));
    }
}
