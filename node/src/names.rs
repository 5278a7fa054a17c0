//! What rooms and events may be called (`interface.md` 1.1).
//!
//! Invariant: a name that passed has no control characters, so it can stand in a room's key, a log line and a metric's help.

use std::borrow::Cow;

use protocol::socketio::RESERVED_EVENTS;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    bytes_max: usize,
    builtin_prefix: String,
}

/// What is wrong with a name, for whoever said it.
pub(crate) type Wrong = Cow<'static, str>;

impl Names {
    pub(crate) fn new(bytes_max: usize, builtin_prefix: &str) -> Names {
        Names { bytes_max, builtin_prefix: builtin_prefix.to_owned() }
    }

    /// What the names of built-in events start with.
    pub(crate) fn builtin_prefix(&self) -> &str {
        &self.builtin_prefix
    }

    /// What a notice of the node is called.
    pub(crate) fn notice(&self, name: &str) -> String {
        format!("{}{name}", self.builtin_prefix)
    }

    /// Whether a room may be called this.
    pub(crate) fn room(&self, name: &str) -> Result<(), Wrong> {
        self.check("room", name)
    }

    /// Whether clients may call an event this: nobody can forge a notice of the node.
    pub(crate) fn event(&self, name: &str) -> Result<(), Wrong> {
        self.check("event", name)?;
        let ours = name.starts_with(&self.builtin_prefix) || name.starts_with("auth:");
        if ours || RESERVED_EVENTS.contains(&name) {
            return Err(format!("event: {name:?} is reserved").into());
        }
        Ok(())
    }

    /// Whether a name is one at all; `field` says what it is of.
    pub(crate) fn check(&self, field: &str, name: &str) -> Result<(), Wrong> {
        let max = self.bytes_max;
        if name.is_empty() || name.len() > max || name.chars().any(char::is_control) {
            return Err(format!("{field}: 1 to {max} bytes of text without control characters").into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_bytes_and_no_control_characters() {
        let names = Names::new(4, "room:");
        for (name, good) in [("", false), ("a", true), ("äö", true), ("abcde", false), ("a\n", false), ("\0", false)]
        {
            assert_eq!(names.room(name).is_ok(), good, "{name:?}");
        }
    }

    #[test]
    fn nobody_can_say_what_only_the_node_says() {
        let names = Names::new(99, "r/");
        for (name, good) in
            [("chat", true), ("room:gap", true), ("r/gap", false), ("auth:x", false), ("connect", false)]
        {
            assert_eq!(names.event(name).is_ok(), good, "{name:?}");
        }
    }
}
