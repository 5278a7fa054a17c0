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
    let mut entries = Vec::new();
    let readable = match &sources.file {
        Some(file) => read_file(file, &mut entries, problems),
        None => true,
    };
    read_environment(&sources.environment, &mut entries, problems);
    for flag in &sources.flags {
        entries.extend(key::find(flag.path).map(|key| (key, flag.raw.clone(), Origin::Flag(flag.name))));
    }
    for (key, raw, origin) in entries {
        if let Err(problem) = key::set(config, key, &raw) {
            problems.push(problem.at(Some(&origin)));
        }
        origins.insert(key.path, origin);
    }
    readable
}

type Entry = (&'static Key, Raw, Origin);

fn unknown(path: &str, origin: &Origin) -> Problem {
    let problem = Problem::new(Code::UnknownKey, format!("unknown key \"{path}\"")).at(Some(origin));
    match key::suggestion(path) {
        Some(nearest) => problem.hint(format!("did you mean \"{nearest}\"?")),
        None => problem,
    }
}

fn read_environment(variables: &[(String, String)], entries: &mut Vec<Entry>, problems: &mut Vec<Problem>) {
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix("STARLING_").filter(|rest| rest.contains("__")) else { continue };
        let path = rest.replace("__", ".").to_lowercase();
        let origin = Origin::Environment(name.clone());
        match key::find(&path) {
            // Templates often leave a variable empty to say "not set".
            Some(_) if value.is_empty() => {}
            Some(key) => entries.push((key, Raw::Word(value.clone()), origin)),
            None => problems.push(unknown(&path, &origin)),
        }
    }
}

fn read_file(file: &File, entries: &mut Vec<Entry>, problems: &mut Vec<Problem>) -> bool {
    let text = match &file.text {
        Ok(text) => text,
        Err(reason) => {
            problems.push(Problem::new(Code::Unreadable, format!("cannot read {}: {reason}", file.name)));
            return false;
        }
    };
    let origin = |offset: usize| position(&file.name, text, offset);
    match DeTable::parse(text) {
        Ok(table) => {
            let mut found = Vec::new();
            walk("", table.get_ref(), &origin, &mut found);
            found.sort_by_key(|found| found.offset);
            for Found { result, .. } in found {
                match result {
                    Ok(entry) => entries.push(entry),
                    Err(problem) => problems.push(problem),
                }
            }
            true
        }
        Err(error) => {
            let origin = error.span().map(|span| origin(span.start));
            problems.push(Problem::new(Code::Syntax, format!("not TOML: {}", error.message())).at(origin.as_ref()));
            false
        }
    }
}

/// What stands at one place of the file.
struct Found {
    offset: usize,
    result: Result<Entry, Problem>,
}

fn walk(prefix: &str, table: &DeTable<'_>, origin: &dyn Fn(usize) -> Origin, found: &mut Vec<Found>) {
    for (name, value) in table {
        let path = format!("{prefix}{}", name.get_ref());
        let offset = name.span().start;
        let here = origin(offset);
        if let Some(key) = key::find(&path) {
            found.push(Found { offset, result: Ok((key, raw(value), here)) });
        } else if !key::is_section(&path) {
            found.push(Found { offset, result: Err(unknown(&path, &here)) });
        } else if let Some(section) = value.get_ref().as_table() {
            walk(&format!("{path}."), section, origin, found);
        } else {
            let problem = Problem::new(Code::Value, format!("\"{path}\" is a section, found {}", raw(value)));
            found.push(Found { offset, result: Err(problem.at(Some(&here)).hint(format!("write [{path}]"))) });
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
