//! One metric per word of a closed set, found by index instead of by a locked map.
//!
//! Invariants: as many cells as words, in the same order, all made at the start; clones share their cells.

use std::marker::PhantomData;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::label::Label;

/// A metric with one label whose values are the words of `L`.
#[derive(Debug)]
pub struct By<L, M> {
    cells: Arc<[M]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, M> By<L, M> {
    /// The metric of one word.
    pub fn of(&self, label: L) -> &M {
        &self.cells[label.index()]
    }
}

impl<L, M> Clone for By<L, M> {
    fn clone(&self) -> Self {
        By { cells: Arc::clone(&self.cells), label: PhantomData }
    }
}

impl<L: Label, M: Default> Default for By<L, M> {
    fn default() -> Self {
        By { cells: L::ALL.iter().map(|_| M::default()).collect(), label: PhantomData }
    }
}

impl<L: Label, M: EncodeMetric + TypedMetric> EncodeMetric for By<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        for label in L::ALL {
            let set = [(L::NAME, label.as_str())];
            self.of(*label).encode(encoder.encode_family(&set)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// A metric with two labels whose values are the words of `A` and `B`.
#[derive(Debug)]
pub struct ByTwo<A, B, M>(By<A, By<B, M>>);

impl<A: Label, B: Label, M> ByTwo<A, B, M> {
    /// The metric of one word of each.
    pub fn of(&self, first: A, second: B) -> &M {
        self.0.of(first).of(second)
    }
}

impl<A, B, M> Clone for ByTwo<A, B, M> {
    fn clone(&self) -> Self {
        ByTwo(self.0.clone())
    }
}

impl<A: Label, B: Label, M: Default> Default for ByTwo<A, B, M> {
    fn default() -> Self {
        ByTwo(By::default())
    }
}

impl<A: Label, B: Label, M: EncodeMetric + TypedMetric> EncodeMetric for ByTwo<A, B, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        for first in A::ALL {
            for second in B::ALL {
                let set = [(A::NAME, first.as_str()), (B::NAME, second.as_str())];
                self.of(*first, *second).encode(encoder.encode_family(&set)?)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// A metric with the label `thread`, whose values are fixed when the process starts.
#[derive(Debug)]
pub struct ByThread<M> {
    cells: Arc<[(String, M)]>,
}

impl<M: Default> ByThread<M> {
    pub(super) fn new(threads: &[String]) -> ByThread<M> {
        ByThread { cells: threads.iter().map(|name| (name.clone(), M::default())).collect() }
    }

    /// The metric of the thread with this index; `None` for one that was not announced at the start.
    pub fn of(&self, thread: usize) -> Option<&M> {
        self.cells.get(thread).map(|(_, metric)| metric)
    }
}

impl<M> Clone for ByThread<M> {
    fn clone(&self) -> Self {
        ByThread { cells: Arc::clone(&self.cells) }
    }
}

impl<M: EncodeMetric + TypedMetric> EncodeMetric for ByThread<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (name, metric) in self.cells.iter() {
            let set = [("thread", name.as_str())];
            metric.encode(encoder.encode_family(&set)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}
