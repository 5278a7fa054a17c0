//! One row of the table: a name, what is done, and what must come of it.

use std::sync::Arc;

use super::node::Node;

/// What a row says when the node did something else.
pub(crate) type Outcome = Result<(), String>;

/// A case. `run` sends the bad input and compares the answer.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) run: Arc<dyn Fn(&Node) -> Outcome + Send + Sync>,
}

impl Row {
    pub(crate) fn new(name: &str, run: impl Fn(&Node) -> Outcome + Send + Sync + 'static) -> Row {
        Row { name: name.to_owned(), run: Arc::new(run) }
    }
}

/// Fails a row with what was seen instead.
pub(crate) fn unexpected<T>(wanted: impl std::fmt::Debug, seen: impl std::fmt::Debug) -> Result<T, String> {
    Err(format!("wanted {wanted:?}, saw {seen:?}"))
}
