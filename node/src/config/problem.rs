//! What can be wrong with a configuration, said in one line.
//!
//! Invariants: a warning is what a node can start with, an error is what it cannot; a code never changes its meaning; the text of a problem holds no line break, whatever the input held.

use std::fmt;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file; line and column count from 1.
    File {
        /// Name as the operator gave it.
        name: String,
        /// Line of the key.
        line: usize,
        /// Column of the key, in characters.
        column: usize,
    },
    /// An environment variable, by name.
    Environment(String),
    /// A command line flag, by name.
    Flag(&'static str),
}

impl Origin {
    /// Line and column in the file; what is not in a file comes before it.
    pub(super) fn place(&self) -> (usize, usize) {
        match self {
            Origin::File { line, column, .. } => (*line, *column),
            Origin::Environment(_) | Origin::Flag(_) => (0, 0),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// The kind of a problem; stable, so that people can search for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The file could not be read.
    Unreadable,
    /// The file is not TOML.
    Syntax,
    /// A value has the wrong type or cannot be understood.
    Value,
    /// A value is outside its bounds.
    Range,
    /// No such key in this version.
    UnknownKey,
    /// The configuration would serve the public without anybody having said so.
    Unsafe,
    /// Two settings exclude or demand each other.
    Conflict,
    /// The cluster cannot work like this.
    Cluster,
    /// The certificate cannot serve.
    Tls,
    /// A secret lies open on this machine: a warning.
    Readable,
}

impl Code {
    /// The code as printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Unreadable => "C010",
            Code::Syntax => "C011",
            Code::Value => "C012",
            Code::Range => "C013",
            Code::UnknownKey => "C014",
            Code::Unsafe => "C020",
            Code::Conflict => "C021",
            Code::Cluster => "C022",
            Code::Tls => "C023",
            Code::Readable => "C030",
        }
    }

    /// Whether a node can start with it, although it should not.
    pub fn is_warning(self) -> bool {
        self == Code::Readable
    }

    fn severity(self) -> &'static str {
        if self.is_warning() { "warning" } else { "error" }
    }
}

/// One thing that is wrong. `Display` is the line to print.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// Its kind.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// Where it was written; absent when nothing was.
    pub origin: Option<Origin>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Problem {
        Problem { code, message: message.into(), origin: None, hint: None }
    }

    pub(super) fn at(mut self, origin: Option<&Origin>) -> Problem {
        self.origin = origin.cloned();
        self
    }

    /// The problem as JSON: `{severity, code, message, at, hint}`; what is absent is null.
    pub fn to_json(&self) -> serde_json::Value {
        let Problem { code, message, origin, hint } = self;
        let at = origin.as_ref().map(ToString::to_string);
        serde_json::json!({
            "severity": code.severity(), "code": code.as_str(), "message": message, "at": at, "hint": hint
        })
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = format!("{}[{}]: {}", self.code.severity(), self.code.as_str(), self.message);
        if let Some(origin) = &self.origin {
            line += &format!(" at {origin}");
        }
        if let Some(hint) = &self.hint {
            line += &format!(" ({hint})");
        }
        // Names and values come from outside; a line break in one would forge a second problem.
        for c in line.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}
