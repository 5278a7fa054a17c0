//! Rules about Rust sources: how a file opens, how long it may be, and which crate is named where.
//!
//! Invariant: production lines are those before a file's `#[cfg(test)]` module; test files have none.

use super::{File, Finding};

/// Production lines that a file may have.
const LINES_MAX: usize = 400;

/// Crates that only one place may name in code, so that replacing them touches one place. The folder named `x/` stands for
/// `x.rs` and everything below `x/`.
const CONFINED: [(&str, &str); 2] = [("hashring", "mesh/src/ring"), ("bincode", "mesh/src/wire")];

/// The rules that look at one file.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(Finding::at(path, 1, "open the file with `//!`: one sentence what it is, then its invariants"));
    }
    let lines = production(path, text).count();
    if lines > LINES_MAX {
        findings.push(Finding::of(path, format!("{lines} production lines, at most {LINES_MAX}: split the state")));
    }
    findings
}

/// Crates that are confined to a place: hashring, bincode, and sled to whichever single file holds it.
pub(super) fn confined(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, place) in CONFINED {
        for file in naming(files, name).filter(|file| !within(&file.path, place)) {
            findings.push(Finding::of(&file.path, format!("`{name}` may be named only in {place}")));
        }
    }
    let sled: Vec<&File> = naming(files, "sled").collect();
    if sled.len() > 1 {
        let all: Vec<&str> = sled.iter().map(|file| file.path.as_str()).collect();
        findings.push(Finding::of(all[0], format!("`sled` may be named in one file only, not in {}", all.join(", "))));
    }
    findings
}

/// The lines that ship: everything before the test module, nothing of a test file.
fn production<'a>(path: &str, text: &'a str) -> impl Iterator<Item = &'a str> {
    let test_file = path.contains("/tests/") || path.ends_with("/tests.rs");
    text.lines().take_while(move |line| !test_file && line.trim_end() != "#[cfg(test)]")
}

/// Files whose shipped code, not its comments, names the crate.
fn naming<'a>(files: &'a [File], name: &'a str) -> impl Iterator<Item = &'a File> {
    let path = format!("{name}::");
    files.iter().filter(|file| file.path.ends_with(".rs")).filter(move |file| {
        let mut code = production(&file.path, &file.text).map(|line| line.split("//").next().unwrap_or(line));
        code.any(|line| line.match_indices(&path).any(|(at, _)| starts_a_path(line, at)))
    })
}

/// Whether the name at this byte stands alone: not the tail of a longer identifier and not quoted.
fn starts_a_path(line: &str, at: usize) -> bool {
    let before = line[..at].chars().next_back();
    !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '"' | '`'))
}

fn within(path: &str, place: &str) -> bool {
    path == format!("{place}.rs") || path.starts_with(&format!("{place}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_file_without_an_opening_sentence_is_found() {
        assert_eq!(check("a/src/x.rs", "use std::fmt;\n").len(), 1);
        assert_eq!(check("a/src/x.rs", "//! Says what it is.\nuse std::fmt;\n"), []);
    }

    #[test]
    fn the_length_limit_counts_what_ships_and_nothing_else() {
        let exactly = format!("//! Long.\n{}", "x\n".repeat(LINES_MAX - 1));
        assert_eq!(check("a/src/x.rs", &exactly), []);
        let more = format!("{exactly}x\n");
        assert_eq!(check("a/src/x.rs", &more).len(), 1);
        assert_eq!(check("a/src/x/tests.rs", &more), []);
        let tests_after = format!("{exactly}#[cfg(test)]\n{}", "x\n".repeat(900));
        assert_eq!(check("a/src/x.rs", &tests_after), []);
    }

    #[test]
    fn a_confined_crate_named_elsewhere_is_found() {
        let bad = [file("mesh/src/slot.rs", "//! x\nlet r = hashring::HashRing::new();\n")];
        assert_eq!(confined(&bad).len(), 1);
        let good = [
            file("mesh/src/ring.rs", "//! x\nuse hashring::HashRing;\n"),
            file("mesh/src/wire/control.rs", "//! x\nuse bincode::Decode;\n"),
            file("mesh/src/slot.rs", "//! x\n// hashring:: is named in words\nlet y = my_hashring::f();\n"),
        ];
        assert_eq!(confined(&good), []);
    }

    #[test]
    fn sled_in_a_second_file_is_found() {
        let first = file("persistence/src/store.rs", "//! x\nuse sled::Db;\n");
        let second = file("persistence/src/lib.rs", "//! x\nfn f(t: &sled::Tree) {}\n");
        let in_test = file("persistence/src/key.rs", "//! x\n#[cfg(test)]\nmod tests { use sled::Db; }\n");
        assert_eq!(confined(&[first, in_test]), []);
        let first = file("persistence/src/store.rs", "//! x\nuse sled::Db;\n");
        assert_eq!(confined(&[first, second]).len(), 1);
    }
}
