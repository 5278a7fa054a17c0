//! The best records of a range while its sections are being visited (pure).
//!
//! Invariants:
//! - What is kept is contiguous at the asked end: nothing beyond the first record that did not fit is ever taken.
//! - Of two records with one number the one that was added with the higher rank stays.

use std::collections::BTreeMap;

use crate::{Page, Query, Record, section::Section};

/// Collects the answer to one query.
pub(crate) struct Collector<'a> {
    query: &'a Query,
    /// Exclusive lower bound, at least the query's.
    after: u64,
    kept: BTreeMap<u64, (usize, Record)>,
    bytes: usize,
    /// The best record that did not fit.
    cut: Option<u64>,
    /// There is more, although nothing that was seen was cut.
    more: bool,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(query: &'a Query, after: u64) -> Collector<'a> {
        Collector { query, after, kept: BTreeMap::new(), bytes: 0, cut: None, more: false }
    }

    /// Takes what belongs into the answer.
    pub(crate) fn add(&mut self, rank: usize, section: Section) {
        for record in section.into_records() {
            let in_range = self.after < record.n && record.n <= self.query.upto;
            if in_range && !self.rejects(record.n) {
                self.insert(rank, record);
            }
        }
    }

    /// Nothing with this number, or farther from the asked end, can enter any more.
    pub(crate) fn rejects(&self, n: u64) -> bool {
        self.cut.is_some_and(|cut| if self.query.newest { n <= cut } else { n >= cut })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The visit ended early: the range holds more than what was added.
    pub(crate) fn more(&mut self) {
        self.more = true;
    }

    pub(crate) fn page(self, damaged: u64, trimmed_through: u64) -> Page {
        let records = self.kept.into_values().map(|(_, record)| record).collect();
        Page { records, more: self.more || self.cut.is_some(), damaged, trimmed_through }
    }

    fn insert(&mut self, rank: usize, record: Record) {
        if self.kept.get(&record.n).is_some_and(|(kept, _)| *kept > rank) {
            return;
        }
        self.bytes += record.body.len();
        if let Some((_, replaced)) = self.kept.insert(record.n, (rank, record)) {
            self.bytes -= replaced.body.len();
        }
        while self.kept.len() > self.query.limit || (self.kept.len() > 1 && self.bytes > self.query.max_bytes) {
            let worst = if self.query.newest { self.kept.pop_first() } else { self.kept.pop_last() };
            let Some((n, (_, record))) = worst else { break };
            self.bytes -= record.body.len();
            self.cut = Some(n);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn query(limit: usize, max_bytes: usize, newest: bool) -> Query {
        let room = Bytes::from_static(b"/\0a");
        Query { slot: 1, room, after: 0, upto: u64::MAX, limit, max_bytes, newest, keep: usize::MAX }
    }

    fn section(n: u64, len: usize) -> Section {
        let body = vec![0; len].into();
        Section::new(Record { slot: 1, room: Bytes::from_static(b"/\0a"), n, time_ms: 0, body })
    }

    fn numbers(page: &Page) -> Vec<u64> {
        page.records.iter().map(|record| record.n).collect()
    }

    #[test]
    fn a_small_record_behind_one_that_did_not_fit_is_not_taken() {
        let query = query(10, 100, true);
        let mut newest = Collector::new(&query, 0);
        newest.add(0, section(10, 60));
        newest.add(0, section(9, 60));
        newest.add(0, section(8, 10));
        assert!(newest.rejects(8) && !newest.rejects(10));
        let page = newest.page(0, 0);
        assert_eq!((numbers(&page), page.more), (vec![10], true));
    }

    #[test]
    fn one_record_over_the_byte_limit_is_answered_alone() {
        let query = query(10, 100, false);
        let mut oldest = Collector::new(&query, 0);
        [1, 2].into_iter().for_each(|n| oldest.add(0, section(n, 500)));
        let page = oldest.page(0, 0);
        assert_eq!((numbers(&page), page.more), (vec![1], true));
    }

    #[test]
    fn the_order_of_visits_does_not_change_the_answer() {
        let query = query(2, 1000, true);
        let mut shuffled = Collector::new(&query, 0);
        [3, 7, 1, 9, 8].into_iter().for_each(|n| shuffled.add(0, section(n, 1)));
        assert_eq!(numbers(&shuffled.page(0, 0)), [8, 9]);
    }

    #[test]
    fn of_two_records_with_one_number_the_later_written_wins() {
        let query = query(9, 1000, true);
        let mut both = Collector::new(&query, 0);
        both.add(2, section(5, 20));
        both.add(1, section(5, 10));
        both.add(3, section(6, 1));
        both.add(2, section(6, 2));
        let page = both.page(0, 0);
        assert_eq!(page.records.iter().map(|r| r.body.len()).collect::<Vec<_>>(), [20, 1]);
    }
}
