//! The tidy test: the house rules that a program can check, checked by a program.
//!
//! Invariants: a rule is a pure function from a path and a text (or a manifest, or the lock file) to findings, each with a
//! test on a bad example; the tree is walked once; findings come out in the order of their paths.

mod manifests;
mod source;
mod text;
mod versions;

use crate::run;
use anyhow::{Context, Result};
use std::fmt;
use std::path::Path;

/// Folders that hold no project file.
const NOT_OURS: [&str; 7] = [".git", "target", "node_modules", "starling-data", "__pycache__", ".venv", "corpus"];

/// One broken rule: where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Path from the root of the tree, with `:LINE` where a line is to blame.
    pub(crate) place: String,
    pub(crate) what: String,
}

impl Finding {
    fn at(path: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding { place: format!("{path}:{line}"), what: what.into() }
    }

    fn of(path: &str, what: impl Into<String>) -> Finding {
        Finding { place: path.to_owned(), what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// A text file of the tree.
pub(crate) struct File {
    /// Path from the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// `cargo xtask tidy`: prints the findings; true when there is none.
pub(crate) fn command() -> Result<bool> {
    let files = walk(&run::root())?;
    let findings = check(&files)?;
    for finding in &findings {
        println!("tidy: {finding}");
    }
    println!("tidy: {} files, {} findings", files.len(), findings.len());
    Ok(findings.is_empty())
}

/// Every rule over these files.
fn check(files: &[File]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in files {
        findings.extend(text::check(&file.path, &file.text));
        if file.path.ends_with(".rs") {
            findings.extend(source::check(&file.path, &file.text));
        }
    }
    findings.extend(source::confined(files));
    findings.extend(manifests::check(files)?);
    findings.extend(versions::check(files)?);
    findings.sort();
    Ok(findings)
}

/// The text files below `root`, in the order of their paths; files that are not UTF-8 are not text.
fn walk(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                if !NOT_OURS.iter().any(|name| entry.file_name() == *name) {
                    folders.push(path);
                }
            } else if let (true, Ok(text)) = (kind.is_file(), std::fs::read_to_string(&path)) {
                let path = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
                files.push(File { path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let findings = check(&walk(&run::root()).unwrap()).unwrap();
        let list: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert!(list.is_empty(), "\n{}", list.join("\n"));
    }

    #[test]
    fn the_walk_skips_folders_that_are_not_ours_and_files_that_are_not_text() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/target")).unwrap();
        std::fs::write(root.path().join("a/target/x.rs"), "x").unwrap();
        std::fs::write(root.path().join("a/b.rs"), "b").unwrap();
        std::fs::write(root.path().join("picture"), [0xff, 0xfe, 0]).unwrap();
        let paths: Vec<String> = walk(root.path()).unwrap().into_iter().map(|file| file.path).collect();
        assert_eq!(paths, ["a/b.rs"]);
    }
}
