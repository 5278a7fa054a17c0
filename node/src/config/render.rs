//! Configurations as text: what is in force, the example file, the environment variables.
//!
//! Invariants: all three are made from the tables of keys, in their order; what `show` prints is a valid file with the same
//! meaning; secrets cannot appear, since no key holds one (see `key`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::key::{Line, Shown, lines};
use super::settle::defaults;
use super::{Config, Facts, KEYS, Loaded, Namespace, Origin, RoomRule};

/// The configuration in force as TOML; with `origin`, each line says where its value came from.
pub fn show(loaded: &Loaded, origin: bool) -> String {
    let pieces = pieces(lines(KEYS, &loaded.config));
    let width = pieces.iter().map(|piece| piece.text.chars().count()).max().unwrap_or(0);
    layout(&pieces, |piece| match piece.kind {
        Kind::Value | Kind::Row if origin => {
            format!("{:width$}  # {}\n", piece.text, origin_of(&loaded.origins, &piece.path))
        }
        Kind::Value | Kind::Row | Kind::Section => format!("{}\n", piece.text),
    })
}

/// The configuration in force as JSON: an object from path to `{value, origin}`, sizes and durations as texts.
pub fn show_json(loaded: &Loaded) -> Value {
    let pieces = pieces(lines(KEYS, &loaded.config)).into_iter().filter(|piece| piece.kind == Kind::Value);
    let entry = |piece: Piece| {
        let origin = origin_of(&loaded.origins, &piece.path);
        (piece.path, json!({ "value": json_of(&piece.literal), "origin": origin }))
    };
    Value::Object(pieces.map(entry).collect())
}

/// The example file: every key with its meaning and its default, commented out but for what a file cannot do without.
pub fn example() -> String {
    let header = "# Starling, every key with its default. Remove the leading # of a line to change it.\n\
                  # Environment variables (STARLING_SECTION__KEY) win over this file, flags win over both.\n\
                  # Durations and sizes are texts with a unit: \"25s\", \"64KiB\". An unknown key is an error.\n\n";
    let rule = RoomRule { pattern: "user:{user}:*".to_owned(), ..RoomRule::default() };
    let namespace = Namespace { name: "/".to_owned(), rooms: vec![rule], ..Namespace::default() };
    let config = Config { namespaces: vec![namespace], ..typical() };
    let body = layout(&pieces(lines(KEYS, &config)), |piece| {
        let doc: String = piece.doc.lines().map(|line| format!("# {line}\n")).collect();
        let is_needed = piece.kind == Kind::Section || ["namespace[0]", "namespace[0].name"].contains(&&*piece.path);
        format!("{doc}{}{}\n", if is_needed { "" } else { "#" }, piece.text)
    });
    format!("{header}{body}")
}

/// Every environment variable that is configuration, with its meaning and its default.
pub fn environment() -> String {
    let row = |variable: Variable| {
        let doc: String = variable.doc.lines().map(|line| format!("# {line}\n")).collect();
        format!("{doc}{}={}\n", variable.name, word(&variable.literal))
    };
    variables().map(row).collect::<Vec<_>>().join("\n")
}

/// Every environment variable that is configuration, as JSON: a list of `{variable, key, default, meaning}`.
pub fn environment_json() -> Value {
    let row = |variable: Variable| {
        let Variable { name, path, doc, literal } = variable;
        json!({ "variable": name, "key": path, "default": json_of(&literal), "meaning": doc })
    };
    variables().map(row).collect()
}

struct Variable {
    name: String,
    path: &'static str,
    doc: &'static str,
    literal: String,
}

fn variables() -> impl Iterator<Item = Variable> {
    let shown = lines(KEYS, &typical());
    KEYS.iter().zip(shown).filter_map(|(key, line)| match line.shown {
        Shown::Value(literal) => Some(Variable { name: key.variable(), path: key.path, doc: key.doc, literal }),
        Shown::Rows(_) => None,
    })
}

/// Defaults of a machine that stands for all.
fn typical() -> Config {
    defaults(&Facts { host_name: "starling-0".to_owned(), cores: 2 })
}

/// A TOML literal as the environment writes it: no quotes, lists parted by commas.
fn word(literal: &str) -> String {
    literal.trim_matches(['[', ']']).replace('"', "").replace(", ", ",")
}

fn json_of(literal: &str) -> Value {
    let parsed = toml::from_str::<Map<String, Value>>(&format!("it = {literal}"));
    parsed.ok().and_then(|mut table| table.remove("it")).unwrap_or(Value::Null)
}

fn origin_of(origins: &BTreeMap<String, Origin>, path: &str) -> String {
    origins.get(path).map_or_else(|| "default".to_owned(), ToString::to_string)
}

/// One line of a file.
struct Piece {
    kind: Kind,
    /// With rows counted, as in `Loaded::origins`.
    path: String,
    doc: &'static str,
    literal: String,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `[section]`
    Section,
    /// `[[table]]`
    Row,
    /// `key = value`
    Value,
}

fn pieces(lines: Vec<Line>) -> Vec<Piece> {
    let mut out = Vec::new();
    let mut current = "";
    for line in lines {
        let (section, name) = line.path.split_once('.').unwrap_or(("", line.path));
        if section != current && matches!(line.shown, Shown::Value(_)) {
            current = section;
            let text = format!("[{section}]");
            out.push(Piece { kind: Kind::Section, path: section.to_owned(), doc: "", literal: String::new(), text });
        }
        push(&mut out, line.path.to_owned(), name, line.path, &line);
    }
    out
}

/// Appends a line that stands at `path`; `table` is what a repeated table is called in a file.
fn push(out: &mut Vec<Piece>, path: String, name: &str, table: &str, line: &Line) {
    match &line.shown {
        Shown::Value(literal) => {
            let text = format!("{name} = {literal}");
            out.push(Piece { kind: Kind::Value, path, doc: line.doc, literal: literal.clone(), text });
        }
        Shown::Rows(rows) => {
            for (number, row) in rows.iter().enumerate() {
                let (path, text) = (format!("{path}[{number}]"), format!("[[{table}]]"));
                let doc = if number == 0 { line.doc } else { "" };
                out.push(Piece { kind: Kind::Row, path: path.clone(), doc, literal: String::new(), text });
                for line in row {
                    push(out, format!("{path}.{}", line.path), line.path, &format!("{table}.{}", line.path), line);
                }
            }
        }
    }
}

/// Puts an empty line before every table but the first.
fn layout(pieces: &[Piece], print: impl Fn(&Piece) -> String) -> String {
    let mut out = String::new();
    for piece in pieces {
        if !out.is_empty() && piece.kind != Kind::Value {
            out.push('\n');
        }
        out += &print(piece);
    }
    out
}
