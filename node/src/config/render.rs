//! Configurations as text: what is in force, the example file, the environment variables.
//!
//! Invariants: all three are made from the table of keys, in its order; what `show` prints is a valid file with the same
//! meaning.

use super::key::Key;
use super::settle::defaults;
use super::{Config, Facts, KEYS, Loaded};

/// The configuration in force as TOML; with `origin`, each line says where its value came from.
pub fn show(loaded: &Loaded, origin: bool) -> String {
    let note = |key: &Key| {
        let origin = loaded.origins.get(key.path);
        origin.map_or_else(|| "default".to_owned(), ToString::to_string)
    };
    let lines: Vec<_> = KEYS.iter().map(|key| (key, assignment(key, &loaded.config))).collect();
    let width = lines.iter().map(|(_, line)| line.chars().count()).max().unwrap_or(0);
    sections(
        &lines,
        |(key, _)| key.section(),
        |(key, line)| {
            if origin { format!("{line:width$}  # {}\n", note(key)) } else { format!("{line}\n") }
        },
    )
}

/// The example file: every key with its meaning and its default, commented out.
pub fn example() -> String {
    let config = typical();
    let header = "# Starling, every key with its default. Remove the leading # of a line to change it.\n\
                  # Environment variables (STARLING_SECTION__KEY) win over this file, flags win over both.\n\
                  # Durations and sizes are texts with a unit: \"25s\", \"64KiB\". An unknown key is an error.\n\n";
    let body = sections(KEYS, Key::section, |key| {
        let doc: String = key.doc.lines().map(|line| format!("# {line}\n")).collect();
        format!("{doc}#{}\n", assignment(key, &config))
    });
    format!("{header}{body}")
}

/// Every environment variable that is configuration, with its meaning and its default.
pub fn environment() -> String {
    let config = typical();
    let row = |key: &Key| {
        let doc: String = key.doc.lines().map(|line| format!("# {line}\n")).collect();
        format!("{doc}{}={}\n", key.variable(), word(&key.show(&config)))
    };
    KEYS.iter().map(row).collect::<Vec<_>>().join("\n")
}

/// Defaults of a machine that stands for all.
fn typical() -> Config {
    defaults(&Facts { host_name: "starling-0".to_owned(), cores: 2 })
}

fn assignment(key: &Key, config: &Config) -> String {
    format!("{} = {}", key.name(), key.show(config))
}

/// A TOML literal as the environment writes it: no quotes, lists parted by commas.
fn word(literal: &str) -> String {
    literal.trim_matches(['[', ']']).replace('"', "").replace(", ", ",")
}

fn sections<T>(items: &[T], section: impl Fn(&T) -> &'static str, line: impl Fn(&T) -> String) -> String {
    let mut out = String::new();
    let mut current = "";
    for item in items {
        if section(item) != current {
            if !current.is_empty() {
                out.push('\n');
            }
            current = section(item);
            out += &format!("[{current}]\n");
        }
        out += &line(item);
    }
    out
}
