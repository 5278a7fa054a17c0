//! Who a client is.
//!
//! Invariant: an anonymous socket has no identity at all, which is what thousands of them cost.

use bytestring::ByteString;
use serde_json::value::RawValue;

use crate::policy::USER_ROOM;

/// Bytes of `info` that others are shown: it travels with every notice. What is longer is kept, and shown to nobody.
pub const INFO_BYTES_MAX: usize = 1_024;

/// What is known about the client of a socket. The default is an anonymous one.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    pub(crate) user: Option<ByteString>,
    pub(crate) info: Option<Box<RawValue>>,
}

impl Identity {
    /// A user of this name: the same person, whatever the number of its sockets.
    pub fn user(name: impl Into<ByteString>) -> Identity {
        Identity { user: Some(name.into()), info: None }
    }

    /// With something that others are shown next to the user.
    #[must_use]
    pub fn with_info(self, info: Box<RawValue>) -> Identity {
        Identity { info: Some(info), ..self }
    }

    /// The room of the user, which every socket of theirs is in.
    pub(crate) fn room(&self) -> Option<String> {
        self.user.as_deref().filter(|user| !user.is_empty()).map(|user| format!("{USER_ROOM}{user}"))
    }

    /// What others are shown, if it is small enough for that.
    pub(crate) fn shown_info(&self) -> Option<&RawValue> {
        self.info.as_deref().filter(|info| info.get().len() <= INFO_BYTES_MAX)
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.user.is_none() && self.info.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_shown_a_kilobyte_of_info_and_nothing_of_more() {
        let with = |bytes: usize| {
            let text = format!("\"{}\"", "x".repeat(bytes - 2));
            Identity::user("ada").with_info(RawValue::from_string(text).unwrap())
        };
        assert_eq!(with(1_024).shown_info().map(|info| info.get().len()), Some(1_024));
        let long = with(1_025);
        assert!(long.shown_info().is_none() && long.info.is_some(), "kept, and shown to nobody");
    }
}
