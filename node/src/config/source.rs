//! Where values come from: a TOML file, the environment, flags; each later source wins.
//!
//! Invariants: reading has no effect outside the arguments; every value that is taken has an origin; a value that cannot
//! be taken leaves the key as it was and adds one problem.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::key::{self, KEYS, Key, Row};
use super::value::{Node, Raw, Setting, Table};
use super::{Code, Config, Origin, Problem};

/// Everything a configuration is made from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The configuration file, if one was named.
    pub file: Option<File>,
    /// Environment variables that are configuration: `STARLING_` with a `__`. Others are ignored.
    pub environment: Vec<(String, String)>,
    /// Flags that were given.
    pub flags: Vec<Flag>,
    /// What the machine says about itself.
    pub facts: Facts,
}

/// A configuration file that was read, or could not be.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name as given.
    pub name: String,
    /// Its text, or why there is none.
    pub text: Result<String, String>,
}

/// A command line flag that sets a key.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The flag, for example `--listen`.
    pub name: &'static str,
    /// The key it sets.
    pub path: &'static str,
    /// Its value.
    pub raw: Raw,
}

/// Facts that defaults are made from.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The host name.
    pub host_name: String,
    /// Usable cores, at least 1.
    pub cores: usize,
}

/// Where a value was found.
pub(super) struct Entry {
    /// Path of its key; rows of repeated tables are counted: `namespace[0].allow_join`.
    path: String,
    raw: Raw,
    origin: Origin,
}

/// What reading leaves behind besides values.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) origins: BTreeMap<String, Origin>,
    pub(super) problems: Vec<Problem>,
}

impl Notes {
    /// Reads a value, or says why it is none.
    pub(super) fn set<V: Setting>(&mut self, value: &mut V, entry: &Entry) {
        match V::read(&entry.raw) {
            Ok(read) => *value = read,
            Err(expected) => {
                self.refuse(entry, format!("\"{}\" {expected}, found {}", entry.path, entry.raw), None);
            }
        }
        self.origins.insert(entry.path.clone(), entry.origin.clone());
    }

    /// Reads the rows of a repeated table.
    pub(super) fn set_rows<R: Row>(&mut self, rows: &mut Vec<R>, entry: &Entry) {
        let path = &entry.path;
        if let Raw::Tables(tables) = &entry.raw {
            for (number, table) in tables.iter().enumerate() {
                let mut row = R::default();
                self.read_table(&mut row, R::KEYS, (&format!("{path}[{number}]."), ""), &table.nodes);
                self.origins.insert(format!("{path}[{number}]"), table.origin.clone());
                rows.push(row);
            }
        } else {
            let hint = format!("write [[{path}]]");
            self.refuse(entry, format!("\"{path}\" is a table that repeats, found {}", entry.raw), Some(hint));
        }
        self.origins.insert(path.clone(), entry.origin.clone());
    }

    /// Reads a table whose keys are below `base.1`, which itself stands at `base.0` in the file.
    fn read_table<T>(&mut self, target: &mut T, keys: &'static [Key<T>], base: (&str, &str), nodes: &[Node]) {
        let (above, within) = base;
        for Node { name, origin, raw } in nodes {
            let name = format!("{within}{name}");
            let entry = Entry { path: format!("{above}{name}"), raw: raw.clone(), origin: origin.clone() };
            if let Some(key) = key::find(keys, &name) {
                (key.set)(target, &entry, self);
            } else if !key::is_section(keys, &name) {
                self.problems.push(unknown(keys, above, &name, origin));
            } else if let Raw::Table(nodes) = raw {
                self.read_table(target, keys, (above, &format!("{name}.")), nodes);
            } else {
                let hint = format!("write [{}]", entry.path);
                self.refuse(&entry, format!("\"{}\" is a section, found {raw}", entry.path), Some(hint));
            }
        }
    }

    fn refuse(&mut self, entry: &Entry, message: String, hint: Option<String>) {
        let problem = Problem::new(Code::Value, message).at(Some(&entry.origin));
        self.problems.push(match hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        });
    }
}

/// Sets in `config` whatever the sources say. False if the file could not be read, so that its values are unknown.
pub(super) fn apply(sources: &Sources, config: &mut Config, notes: &mut Notes) -> bool {
    let readable = sources.file.as_ref().is_none_or(|file| read_file(file, config, notes));
    read_environment(&sources.environment, config, notes);
    for flag in &sources.flags {
        let origin = Origin::Flag(flag.name);
        if let Some(key) = key::find(KEYS, flag.path) {
            (key.set)(config, &Entry { path: key.path.to_owned(), raw: flag.raw.clone(), origin }, notes);
        }
    }
    readable
}

fn unknown<T>(keys: &[Key<T>], above: &str, name: &str, origin: &Origin) -> Problem {
    let problem = Problem::new(Code::UnknownKey, format!("unknown key \"{above}{name}\"")).at(Some(origin));
    match key::suggestion(keys, name) {
        Some(nearest) => problem.hint(format!("did you mean \"{nearest}\"?")),
        None => problem,
    }
}

fn read_environment(variables: &[(String, String)], config: &mut Config, notes: &mut Notes) {
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix("STARLING_").filter(|rest| rest.contains("__")) else { continue };
        // Templates often leave a variable empty to say "not set".
        let path = rest.replace("__", ".").to_lowercase();
        let origin = Origin::Environment(name.clone());
        let repeated = KEYS.iter().find(|key| key.repeats && path.starts_with(key.path));
        match (key::find(KEYS, &path), repeated) {
            (_, Some(table)) => {
                let problem = Problem::new(Code::UnknownKey, format!("unknown key \"{path}\"")).at(Some(&origin));
                notes.problems.push(problem.hint(format!("[[{}]] is written in the file only", table.path)));
            }
            (Some(_), None) if value.is_empty() => {}
            (Some(key), None) => {
                (key.set)(config, &Entry { path, raw: Raw::Word(value.clone()), origin }, notes);
            }
            (None, None) => notes.problems.push(unknown(KEYS, "", &path, &origin)),
        }
    }
}

fn read_file(file: &File, config: &mut Config, notes: &mut Notes) -> bool {
    let text = match &file.text {
        Ok(text) => text,
        Err(reason) => {
            notes.problems.push(Problem::new(Code::Unreadable, format!("cannot read {}: {reason}", file.name)));
            return false;
        }
    };
    let origin = |offset: usize| position(&file.name, text, offset);
    let (table, errors) = DeTable::parse_recoverable(text);
    // Only the first: what follows is mostly the parser's own confusion.
    let first = errors.iter().min_by_key(|error| error.span().map_or(0, |span| span.start));
    if let Some(error) = first {
        let origin = error.span().map(|span| origin(span.start));
        let message = format!("not TOML: {}", error.message());
        notes.problems.push(Problem::new(Code::Syntax, message).at(origin.as_ref()));
        return false;
    }
    notes.read_table(config, KEYS, ("", ""), &nodes(table.get_ref(), &origin));
    // The parser sorts by name, people read by line.
    notes.problems.sort_by_key(|problem| problem.origin.as_ref().map_or((0, 0), Origin::place));
    true
}

fn nodes(table: &DeTable<'_>, origin: &dyn Fn(usize) -> Origin) -> Vec<Node> {
    let node = |(name, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| Node {
        name: name.get_ref().to_string(),
        origin: origin(name.span().start),
        raw: raw(value, origin),
    };
    table.iter().map(node).collect()
}

fn raw(value: &Spanned<DeValue<'_>>, origin: &dyn Fn(usize) -> Origin) -> Raw {
    match value.get_ref() {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Raw::Other("a huge number"), Raw::Integer)
        }
        DeValue::Array(items) => {
            let texts: Option<_> = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
            let table = |item: &Spanned<DeValue<'_>>| {
                let nodes = nodes(item.get_ref().as_table()?, origin);
                Some(Table { origin: origin(item.span().start), nodes })
            };
            let tables = || items.iter().map(table).collect::<Option<_>>();
            texts
                .map(Raw::List)
                .or_else(|| tables().map(Raw::Tables))
                .unwrap_or(Raw::Other("a list with other things than text"))
        }
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(table) => Raw::Table(nodes(table, origin)),
    }
}

fn position(name: &str, text: &str, offset: usize) -> Origin {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Origin::File {
        name: name.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
    }
}
