//! What one member has seen of every publisher: finds lost, duplicated and reordered messages, and remembers the order.
//!
//! - Every message is exactly one of: in order, skipping ahead, late (reordered), or seen before (duplicated).
//! - The order is a rolling hash over the messages as they arrived, duplicates left out: two members of a room that saw
//!   the same messages in the same order have the same hash.
//! - Memory is bounded: of a gap at most [`MISSING_MAX`] messages are remembered one by one, older ones count as lost.

/// How many missing messages of one publisher a member remembers; older ones are given up as lost.
const MISSING_MAX: usize = 4096;
/// An odd constant with well-mixed bits for the order hash.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// How a message relates to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// The one that had to come.
    InOrder,
    /// One or more before it have not come (yet).
    Ahead,
    /// It was skipped over before: the order was broken.
    Late,
    /// It has come before.
    Duplicate,
}

/// One member's view of all publishers of its room.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    streams: Vec<Stream>,
    order: u64,
}

#[derive(Clone, Debug, Default)]
struct Stream {
    next: u32,
    /// Ascending.
    missing: Vec<u32>,
    forgotten: u64,
}

impl Tracker {
    /// Forgets everything and expects number 0 of each of `publishers`.
    pub(crate) fn reset(&mut self, publishers: usize) {
        self.streams.clear();
        self.streams.resize(publishers, Stream::default());
        self.order = 0;
    }

    /// Takes note of message `seq` of the room's publisher number `publisher`; `None` if there is no such publisher.
    /// `id` names the publisher in the order hash.
    pub(crate) fn observe(&mut self, publisher: usize, id: u16, seq: u32) -> Option<Sighting> {
        let sighting = self.streams.get_mut(publisher)?.observe(seq);
        if sighting != Sighting::Duplicate {
            let message = u64::from(id) << 32 | u64::from(seq);
            self.order = (self.order ^ message).wrapping_mul(MIX).rotate_left(29);
        }
        Some(sighting)
    }

    /// The hash of everything seen since the reset, in its order.
    pub(crate) fn order(&self) -> u64 {
        self.order
    }

    /// How many of the first `sent` messages of `publisher` never came, those in `refused` (ascending) not being owed.
    pub(crate) fn lost(&self, publisher: usize, sent: u32, refused: &[u32]) -> u64 {
        let Some(stream) = self.streams.get(publisher) else { return 0 };
        let holes = stream.missing.iter().filter(|seq| refused.binary_search(seq).is_err()).count() as u64;
        let refused_tail = refused.iter().filter(|seq| **seq >= stream.next && **seq < sent).count() as u64;
        holes + stream.forgotten + u64::from(sent.saturating_sub(stream.next)).saturating_sub(refused_tail)
    }
}

impl Stream {
    fn observe(&mut self, seq: u32) -> Sighting {
        if seq == self.next {
            self.next = seq.saturating_add(1);
            return Sighting::InOrder;
        }
        if seq > self.next {
            self.skip(seq);
            return Sighting::Ahead;
        }
        match self.missing.binary_search(&seq) {
            Ok(at) => {
                self.missing.remove(at);
                Sighting::Late
            }
            Err(_) => Sighting::Duplicate,
        }
    }

    /// Notes that everything from `next` up to `seq` is missing.
    fn skip(&mut self, seq: u32) {
        let remembered = u32::try_from(MISSING_MAX).unwrap_or(u32::MAX);
        let first = self.next.max(seq.saturating_sub(remembered));
        self.forgotten += u64::from(first - self.next);
        self.missing.extend(first..seq);
        let surplus = self.missing.len().saturating_sub(MISSING_MAX);
        self.missing.drain(..surplus);
        self.forgotten += surplus as u64;
        self.next = seq.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(sequence: &[u32]) -> (Tracker, Vec<Sighting>) {
        let mut tracker = Tracker::default();
        tracker.reset(1);
        let sightings = sequence.iter().filter_map(|seq| tracker.observe(0, 7, *seq)).collect();
        (tracker, sightings)
    }

    #[test]
    fn messages_in_order_are_neither_lost_nor_anything_else() {
        let (tracker, sightings) = seen(&[0, 1, 2, 3]);
        assert_eq!(sightings, [Sighting::InOrder; 4]);
        assert_eq!(tracker.lost(0, 4, &[]), 0);
    }

    #[test]
    fn a_hole_is_lost_unless_it_was_refused() {
        let (tracker, sightings) = seen(&[0, 1, 4]);
        assert_eq!(sightings[2], Sighting::Ahead);
        assert_eq!(tracker.lost(0, 5, &[]), 2);
        assert_eq!(tracker.lost(0, 5, &[3]), 1);
        assert_eq!(tracker.lost(0, 5, &[2, 3]), 0);
    }

    #[test]
    fn a_missing_tail_is_lost_unless_it_was_refused() {
        let (tracker, _) = seen(&[0, 1]);
        assert_eq!(tracker.lost(0, 5, &[]), 3);
        assert_eq!(tracker.lost(0, 5, &[1, 4]), 2);
    }

    #[test]
    fn a_message_that_comes_after_its_successor_is_late_and_not_lost() {
        let (tracker, sightings) = seen(&[0, 2, 1, 3]);
        assert_eq!(sightings, [Sighting::InOrder, Sighting::Ahead, Sighting::Late, Sighting::InOrder]);
        assert_eq!(tracker.lost(0, 4, &[]), 0);
    }

    #[test]
    fn the_second_copy_is_a_duplicate_also_after_it_came_late() {
        let (_, sightings) = seen(&[0, 0, 2, 1, 1, 2]);
        assert_eq!(
            sightings,
            [
                Sighting::InOrder,
                Sighting::Duplicate,
                Sighting::Ahead,
                Sighting::Late,
                Sighting::Duplicate,
                Sighting::Duplicate
            ]
        );
    }

    #[test]
    fn members_agree_on_the_order_exactly_when_it_was_the_same() {
        let (one, _) = seen(&[0, 1, 2]);
        let (same_with_a_copy, _) = seen(&[0, 1, 1, 2]);
        let (other, _) = seen(&[0, 2, 1]);
        let (shorter, _) = seen(&[0, 1]);
        assert_eq!(one.order(), same_with_a_copy.order());
        assert_ne!(one.order(), other.order());
        assert_ne!(one.order(), shorter.order());
    }

    #[test]
    fn the_order_of_two_publishers_matters_too() {
        let order = |ids: [u16; 2]| {
            let mut tracker = Tracker::default();
            tracker.reset(2);
            for id in ids {
                tracker.observe(usize::from(id), id, 0);
            }
            tracker.order()
        };
        assert_ne!(order([0, 1]), order([1, 0]));
    }

    #[test]
    fn a_gap_of_any_size_costs_bounded_memory_and_is_counted_whole() {
        let (tracker, _) = seen(&[0, u32::MAX]);
        assert!(tracker.streams[0].missing.len() <= MISSING_MAX);
        assert_eq!(tracker.lost(0, u32::MAX, &[]), u64::from(u32::MAX) - 1);
    }

    #[test]
    fn a_publisher_of_another_room_is_not_tracked() {
        let mut tracker = Tracker::default();
        tracker.reset(1);
        assert_eq!(tracker.observe(1, 1, 0), None);
        assert_eq!(tracker.lost(1, 5, &[]), 0);
    }
}
