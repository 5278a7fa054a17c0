//! What happened, as one number and, where somebody wants to read it, as lines.
//!
//! Invariant: equal runs give equal numbers; every output of every node and every fault is in it.

use std::{collections::VecDeque, hash::Hasher};

use xxhash_rust::xxh3::Xxh3;

use super::Ms;

/// Lines kept for who has to find out what went wrong; `SIM_LINES` asks for more.
const LINES: usize = 400;

/// See the module.
pub(super) struct Trace {
    hash: Xxh3,
    /// The last lines; `None` = nobody reads them.
    lines: Option<VecDeque<String>>,
    most: usize,
}

impl Trace {
    pub(super) fn new(written: bool) -> Trace {
        let most = std::env::var("SIM_LINES").ok().and_then(|lines| lines.parse().ok());
        Trace { hash: Xxh3::new(), lines: written.then(VecDeque::new), most: most.unwrap_or(LINES) }
    }

    /// Something happened at a node. The words are only put together where they are read.
    pub(super) fn note(&mut self, now: Ms, node: usize, what: &str, numbers: &[u64], words: impl FnOnce() -> String) {
        self.hash.write_u64(now);
        self.hash.write_usize(node);
        self.hash.write(what.as_bytes());
        for number in numbers {
            self.hash.write_u64(*number);
        }
        if let Some(lines) = &mut self.lines {
            lines.push_back(format!("{now:>7} N{node} {what} {}", words()));
            if lines.len() > self.most {
                lines.pop_front();
            }
        }
    }

    /// Bytes that somebody sent.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.hash.write(bytes);
    }

    pub(super) fn number(&self) -> u64 {
        self.hash.finish()
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &String> {
        self.lines.iter().flatten()
    }
}
