//! Values as they are written, and how each type is read from them and shown again.
//!
//! Invariants: `Setting::read(literal(x)) == x` for every type; an error says what would have been right, never how
//! parsing failed; a size or a duration without a unit is refused, because a guess would be wrong for somebody.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::Origin;

/// A value before its key gave it a type.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML list of strings, or a repeated flag.
    List(Vec<String>),
    /// Text from the environment or a flag: the key decides what it means.
    Word(String),
    /// A TOML table.
    Table(Vec<Node>),
    /// A TOML list of tables; never empty.
    Tables(Vec<Table>),
    /// A TOML type that no key has.
    Other(&'static str),
}

/// A name in a TOML table, and what stands there.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub(super) name: String,
    pub(super) origin: Origin,
    pub(super) raw: Raw,
}

/// One table of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    pub(super) origin: Origin,
    pub(super) nodes: Vec<Node>,
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raw::Text(text) | Raw::Word(text) => write!(f, "{}", quote(text)),
            Raw::Integer(number) => write!(f, "the number {number}"),
            Raw::Bool(value) => write!(f, "{value}"),
            Raw::List(items) => write!(f, "{}", list(items)),
            Raw::Table(_) => write!(f, "a table"),
            Raw::Tables(_) => write!(f, "a list of tables"),
            Raw::Other(kind) => write!(f, "{kind}"),
        }
    }
}

/// A type that a key can have.
pub(super) trait Setting: Sized {
    /// Reads a value; the error completes the sentence "KEY …".
    fn read(raw: &Raw) -> Result<Self, String>;
    /// The value as a TOML literal; an optional value that is absent is the empty text.
    fn literal(&self) -> String;
}

pub(super) fn text(raw: &Raw) -> Option<&str> {
    match raw {
        Raw::Text(text) | Raw::Word(text) => Some(text),
        Raw::Integer(_) | Raw::Bool(_) | Raw::List(_) | Raw::Table(_) | Raw::Tables(_) | Raw::Other(_) => None,
    }
}

/// A TOML basic string.
pub(super) fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list(items: &[String]) -> String {
    format!("[{}]", items.iter().map(|item| quote(item)).collect::<Vec<_>>().join(", "))
}

impl Setting for bool {
    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Bool(value) => Ok(*value),
            Raw::Word(word) if word == "true" => Ok(true),
            Raw::Word(word) if word == "false" => Ok(false),
            Raw::Word(_)
            | Raw::Text(_)
            | Raw::Integer(_)
            | Raw::List(_)
            | Raw::Table(_)
            | Raw::Tables(_)
            | Raw::Other(_) => Err("needs true or false".to_owned()),
        }
    }
    fn literal(&self) -> String {
        self.to_string()
    }
}

fn integer<T: TryFrom<i64>>(raw: &Raw) -> Option<T> {
    let number = match raw {
        Raw::Integer(number) => Some(*number),
        Raw::Word(word) => word.parse().ok(),
        Raw::Text(_) | Raw::Bool(_) | Raw::List(_) | Raw::Table(_) | Raw::Tables(_) | Raw::Other(_) => None,
    };
    number.and_then(|number| T::try_from(number).ok())
}

impl Setting for u16 {
    fn read(raw: &Raw) -> Result<Self, String> {
        integer(raw).ok_or_else(|| "needs a whole number from 0 to 65535".to_owned())
    }
    fn literal(&self) -> String {
        self.to_string()
    }
}

impl Setting for usize {
    fn read(raw: &Raw) -> Result<Self, String> {
        integer(raw).ok_or_else(|| "needs a whole number".to_owned())
    }
    fn literal(&self) -> String {
        self.to_string()
    }
}

impl Setting for String {
    fn read(raw: &Raw) -> Result<Self, String> {
        text(raw).map(str::to_owned).ok_or_else(|| "needs text in quotes".to_owned())
    }
    fn literal(&self) -> String {
        quote(self)
    }
}

impl Setting for PathBuf {
    fn read(raw: &Raw) -> Result<Self, String> {
        text(raw).filter(|path| !path.is_empty()).map(PathBuf::from).ok_or_else(|| "needs a path in quotes".to_owned())
    }
    fn literal(&self) -> String {
        quote(&self.to_string_lossy())
    }
}

impl Setting for SocketAddr {
    fn read(raw: &Raw) -> Result<Self, String> {
        let parsed = text(raw).and_then(|address| address.parse().ok());
        parsed.ok_or_else(|| "needs an IP address and a port such as \"127.0.0.1:3000\"".to_owned())
    }
    fn literal(&self) -> String {
        quote(&self.to_string())
    }
}

impl Setting for Duration {
    fn read(raw: &Raw) -> Result<Self, String> {
        let parsed = text(raw).and_then(|duration| humantime::parse_duration(duration).ok());
        parsed.ok_or_else(|| "needs a duration with a unit such as \"25s\"".to_owned())
    }
    fn literal(&self) -> String {
        quote(&humantime::format_duration(*self).to_string())
    }
}

impl<T: Setting> Setting for Option<T> {
    fn read(raw: &Raw) -> Result<Self, String> {
        if text(raw) == Some("") { Ok(None) } else { T::read(raw).map(Some) }
    }
    fn literal(&self) -> String {
        self.as_ref().map_or_else(|| quote(""), Setting::literal)
    }
}

impl Setting for Vec<String> {
    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::List(items) => Ok(items.clone()),
            Raw::Word(word) => {
                Ok(word.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
            }
            Raw::Text(_) | Raw::Integer(_) | Raw::Bool(_) | Raw::Table(_) | Raw::Tables(_) | Raw::Other(_) => {
                Err("needs a list of texts such as [\"a\", \"b\"]".to_owned())
            }
        }
    }
    fn literal(&self) -> String {
        list(self)
    }
}

/// An amount of bytes, written with a unit: `"64KiB"`, `"1MB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// The amount as an index type; saturates on machines that cannot hold it.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Setting for Size {
    fn read(raw: &Raw) -> Result<Self, String> {
        let parsed = text(raw)
            .filter(|size| size.ends_with(|last: char| last.is_ascii_alphabetic()))
            .and_then(|size| size.parse::<bytesize::ByteSize>().ok());
        parsed.map(|size| Size(size.as_u64())).ok_or_else(|| "needs a size with a unit such as \"64KiB\"".to_owned())
    }
    fn literal(&self) -> String {
        const UNITS: [(u64, &str); 6] = [
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
            (1_000_000_000, "GB"),
            (1_000_000, "MB"),
            (1_000, "kB"),
        ];
        let exact = UNITS.iter().find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit));
        let (unit, name) = exact.copied().unwrap_or((1, "B"));
        quote(&format!("{}{name}", self.0 / unit))
    }
}

/// A set of words, one of which a key takes.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal),+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant),+ }

        impl $crate::config::value::Setting for $name {
            fn read(raw: &$crate::config::Raw) -> Result<Self, String> {
                match $crate::config::value::text(raw) {
                    $(Some($word) => Ok($name::$variant),)+
                    Some(_) | None => Err(format!("needs one of {}", [$(concat!("\"", $word, "\"")),+].join(", "))),
                }
            }
            fn literal(&self) -> String {
                $crate::config::value::quote(match self { $($name::$variant => $word),+ })
            }
        }
    };
}
pub(super) use choice;

choice! {
    /// Where recent history lives.
    StoreKind {
        /// On disk, in `store.dir`.
        Sled = "sled",
        /// In memory: gone when the process ends.
        Memory = "memory"
    }
}

choice! {
    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json"
    }
}

/// The transports that are offered; at least one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transports {
    /// HTTP long-polling.
    pub polling: bool,
    /// WebSocket, directly and by upgrade.
    pub websocket: bool,
}

impl Setting for Transports {
    fn read(raw: &Raw) -> Result<Self, String> {
        let words = Vec::<String>::read(raw).unwrap_or_default();
        let known = |word: &String| word == "polling" || word == "websocket";
        if words.is_empty() || !words.iter().all(known) {
            return Err("needs a list of \"polling\" and \"websocket\", at least one".to_owned());
        }
        let has = |name: &str| words.iter().any(|word| word == name);
        Ok(Transports { polling: has("polling"), websocket: has("websocket") })
    }
    fn literal(&self) -> String {
        let words = [(self.polling, "polling"), (self.websocket, "websocket")];
        list(&words.iter().filter(|(on, _)| *on).map(|(_, word)| (*word).to_owned()).collect::<Vec<_>>())
    }
}

/// Origins whose pages may connect (OWASP: exact scheme, host and port; never a pattern).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// Every origin may connect.
    pub any: bool,
    /// These may, in lower case.
    pub exact: BTreeSet<String>,
}

impl Origins {
    /// Every origin.
    pub fn any() -> Origins {
        Origins { any: true, exact: BTreeSet::new() }
    }

    /// Whether it is one of them.
    pub fn contains(&self, origin: &str) -> bool {
        self.any || self.exact.contains(&origin.to_ascii_lowercase())
    }
}

impl Setting for Origins {
    fn read(raw: &Raw) -> Result<Self, String> {
        const EXPECTED: &str = "needs a list of origins such as [\"https://chat.example.com\"], or [\"*\"]";
        let mut origins = Origins::default();
        for item in Vec::<String>::read(raw).map_err(|_| EXPECTED.to_owned())? {
            if item == "*" {
                origins.any = true;
                continue;
            }
            let item = item.to_ascii_lowercase();
            let authority = item.strip_prefix("https://").or_else(|| item.strip_prefix("http://")).unwrap_or_default();
            if authority.is_empty() || authority.contains(['/', '?', '#', '@', '*', ' ']) {
                return Err(EXPECTED.to_owned());
            }
            origins.exact.insert(item);
        }
        Ok(origins)
    }
    fn literal(&self) -> String {
        let any = self.any.then(|| "*".to_owned());
        list(&any.into_iter().chain(self.exact.iter().cloned()).collect::<Vec<_>>())
    }
}

/// Networks, as CIDR.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<IpNet>);

impl Networks {
    /// Whether one of them holds this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl Setting for Networks {
    fn read(raw: &Raw) -> Result<Self, String> {
        const EXPECTED: &str = "needs a list of networks such as [\"10.0.0.0/8\", \"192.0.2.7\"]";
        let network = |item: &String| {
            let address = || item.parse::<IpAddr>().map(IpNet::from);
            item.parse().or_else(|_| address()).map_err(|_| EXPECTED.to_owned())
        };
        let items = Vec::<String>::read(raw).map_err(|_| EXPECTED.to_owned())?;
        items.iter().map(network).collect::<Result<_, _>>().map(Networks)
    }
    fn literal(&self) -> String {
        list(&self.0.iter().map(ToString::to_string).collect::<Vec<_>>())
    }
}
