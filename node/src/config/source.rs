//! Where values come from: a TOML file, the environment, flags; each later source wins.
//!
//! Invariants: reading has no effect outside the arguments; every value that is taken has an origin; a value that cannot
//! be taken leaves the key as it was and adds one problem.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::key::{self, Key};
use super::value::Raw;
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

/// Sets in `config` whatever the sources say. False if the file could not be read, so that its values are unknown.
pub(super) fn apply(
    sources: &Sources,
    config: &mut Config,
    origins: &mut BTreeMap<&'static str, Origin>,
    problems: &mut Vec<Problem>,
) -> bool {
    let mut found = Vec::new();
    let readable = sources.file.as_ref().is_none_or(|file| read_file(file, &mut found));
    read_environment(&sources.environment, &mut found);
    for flag in &sources.flags {
        found.extend(key::find(flag.path).map(|key| Ok((key, flag.raw.clone(), Origin::Flag(flag.name)))));
    }
    for entry in found {
        match entry {
            Ok((key, raw, origin)) => {
                problems.extend(key::set(config, key, &raw).err().map(|problem| problem.at(Some(&origin))));
                origins.insert(key.path, origin);
            }
            Err(problem) => problems.push(problem),
        }
    }
    readable
}

/// One value, or why what stands there is none.
type Entry = Result<(&'static Key, Raw, Origin), Problem>;

fn unknown(path: &str, origin: &Origin) -> Problem {
    let problem = Problem::new(Code::UnknownKey, format!("unknown key \"{path}\"")).at(Some(origin));
    match key::suggestion(path) {
        Some(nearest) => problem.hint(format!("did you mean \"{nearest}\"?")),
        None => problem,
    }
}

fn read_environment(variables: &[(String, String)], found: &mut Vec<Entry>) {
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix("STARLING_").filter(|rest| rest.contains("__")) else { continue };
        let path = rest.replace("__", ".").to_lowercase();
        let origin = Origin::Environment(name.clone());
        match key::find(&path) {
            // Templates often leave a variable empty to say "not set".
            Some(_) if value.is_empty() => {}
            Some(key) => found.push(Ok((key, Raw::Word(value.clone()), origin))),
            None => found.push(Err(unknown(&path, &origin))),
        }
    }
}

fn read_file(file: &File, found: &mut Vec<Entry>) -> bool {
    let text = match &file.text {
        Ok(text) => text,
        Err(reason) => {
            found.push(Err(Problem::new(Code::Unreadable, format!("cannot read {}: {reason}", file.name))));
            return false;
        }
    };
    let origin = |offset: usize| position(&file.name, text, offset);
    let (table, errors) = DeTable::parse_recoverable(text);
    // Only the first: what follows is mostly the parser's own confusion.
    let first = errors.iter().min_by_key(|error| error.span().map_or(0, |span| span.start));
    if let Some(error) = first {
        let origin = error.span().map(|span| origin(span.start));
        found.push(Err(Problem::new(Code::Syntax, format!("not TOML: {}", error.message())).at(origin.as_ref())));
        return false;
    }
    let mut placed = Vec::new();
    walk("", table.get_ref(), &origin, &mut placed);
    placed.sort_by_key(|(offset, _)| *offset);
    found.extend(placed.into_iter().map(|(_, entry)| entry));
    true
}

/// Collects the entries of a table with their offsets: the parser sorts by name, people read by line.
fn walk(prefix: &str, table: &DeTable<'_>, origin: &dyn Fn(usize) -> Origin, placed: &mut Vec<(usize, Entry)>) {
    for (name, value) in table {
        let path = format!("{prefix}{}", name.get_ref());
        let offset = name.span().start;
        let here = origin(offset);
        if let Some(key) = key::find(&path) {
            placed.push((offset, Ok((key, raw(value), here))));
        } else if !key::is_section(&path) {
            placed.push((offset, Err(unknown(&path, &here))));
        } else if let Some(section) = value.get_ref().as_table() {
            walk(&format!("{path}."), section, origin, placed);
        } else {
            let problem = Problem::new(Code::Value, format!("\"{path}\" is a section, found {}", raw(value)));
            placed.push((offset, Err(problem.at(Some(&here)).hint(format!("write [{path}]")))));
        }
    }
}

fn raw(value: &Spanned<DeValue<'_>>) -> Raw {
    match value.get_ref() {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Raw::Other("a huge number"), Raw::Integer)
        }
        DeValue::Array(items) => {
            let texts: Option<Vec<String>> =
                items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
            texts.map_or(Raw::Other("a list with other things than text"), Raw::List)
        }
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
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
