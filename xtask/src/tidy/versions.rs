//! The lock file against the floors of `xtask/min-versions.toml`: a version with a published flaw cannot come back unseen.
//!
//! Invariant: every version of a named crate in the lock file is judged, since two can be there at once.

use super::{File, Finding};
use anyhow::{Context, Result, bail};
use serde::Deserialize;

const RULES: &str = "xtask/min-versions.toml";
const LOCK: &str = "Cargo.lock";

#[derive(Deserialize)]
struct Rules {
    #[serde(rename = "crate")]
    crates: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: String,
    min: Option<String>,
    exact: Option<String>,
    why: String,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
}

/// The lock file of the tree against the rules of the tree.
pub(super) fn check(files: &[File]) -> Result<Vec<Finding>> {
    let text = |path: &str| files.iter().find(|file| file.path == path).with_context(|| format!("no {path}"));
    compare(&text(RULES)?.text, &text(LOCK)?.text)
}

fn compare(rules: &str, lock: &str) -> Result<Vec<Finding>> {
    let rules: Rules = toml::from_str(rules).with_context(|| format!("cannot read {RULES}"))?;
    let lock: Lock = toml::from_str(lock).context("cannot read Cargo.lock")?;
    let mut findings = Vec::new();
    for rule in &rules.crates {
        for package in lock.package.iter().filter(|package| package.name == rule.name) {
            if let Some(wanted) = broken(rule, &package.version)? {
                let what = format!("{} {} must be {wanted}: {}", package.name, package.version, rule.why);
                findings.push(Finding::of(LOCK, what));
            }
        }
    }
    Ok(findings)
}

/// What the version should have been, when it breaks the rule.
fn broken(rule: &Rule, version: &str) -> Result<Option<String>> {
    match (&rule.min, &rule.exact) {
        (Some(min), None) => Ok((parts(version)? < parts(min)?).then(|| format!("at least {min}"))),
        (None, Some(exact)) => Ok((version != exact).then(|| exact.clone())),
        (Some(_), Some(_)) | (None, None) => bail!("{RULES}: `{}` needs either `min` or `exact`", rule.name),
    }
}

/// Major, minor, patch and whether it is a full release: a pre-release is older than the release it precedes.
fn parts(version: &str) -> Result<(u64, u64, u64, bool)> {
    let core = version.split(['-', '+']).next().unwrap_or(version);
    let released = !version.contains('-');
    let numbers: Result<Vec<u64>, _> = core.split('.').map(str::parse).collect();
    match numbers.with_context(|| format!("not a version: {version}"))?[..] {
        [major, minor, patch] => Ok((major, minor, patch, released)),
        _ => bail!("not a version of three numbers: {version}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(rule: &str, version: &str) -> usize {
        let rules = format!("[[crate]]\nname = \"q\"\n{rule}\nwhy = \"a flaw\"\n");
        let lock = format!("[[package]]\nname = \"q\"\nversion = \"{version}\"\n");
        compare(&rules, &lock).unwrap().len()
    }

    #[test]
    fn a_version_below_its_floor_is_found_numerically_not_as_text() {
        assert_eq!(findings("min = \"0.11.18\"", "0.11.9"), 1);
        assert_eq!(findings("min = \"0.11.18\"", "0.11.18"), 0);
        assert_eq!(findings("min = \"0.11.18\"", "0.12.0"), 0);
        assert_eq!(findings("min = \"0.11.18\"", "0.11.18-rc.1"), 1);
    }

    #[test]
    fn a_pinned_version_must_be_exactly_that() {
        assert_eq!(findings("exact = \"2.0.1\"", "2.0.1"), 0);
        assert_eq!(findings("exact = \"2.0.1\"", "2.0.2"), 1);
    }

    #[test]
    fn a_rule_without_a_floor_or_a_pin_is_refused() {
        let lock = "[[package]]\nname = \"q\"\nversion = \"1.0.0\"\n";
        assert!(compare("[[crate]]\nname = \"q\"\nwhy = \"x\"\n", lock).is_err());
    }
}
