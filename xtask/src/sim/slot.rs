//! `cargo xtask sim slot`: whole clusters of slot machines from seeds, and with `--bugs` the same with one mistake at a time.
//!
//! A mistake is a patch in `mesh/slot-bugs`, applied to a copy of the tree. What stands before its first `diff` line is for
//! people, and one line of it, `run: NAME`, says which run has to find it.
//!
//! Invariants: what is played are the tests of `mesh`, so CI and this command judge alike; the tree itself is never touched; a
//! patch that does not apply any more, or does not build, is an error and not a mistake that was found.

use crate::run;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::{fs, path::Path};

/// The patches.
const BUGS: &str = "mesh/slot-bugs";
/// The test that plays the seeds which its environment names.
const EXPLORE: &str = "slot::tests::storm::runs::explore";

/// Which runs, and which seeds of them.
#[derive(Args)]
pub(crate) struct Options {
    /// One run by its name, as a failing seed prints it; all of them otherwise.
    #[arg(long, default_value = "")]
    run: String,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many seeds of each run.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// Build with optimisation: for many seeds.
    #[arg(long)]
    release: bool,
    /// Lines of the trace that a failing seed prints.
    #[arg(long, default_value_t = 400)]
    lines: u64,
    /// Plant the mistakes of mesh/slot-bugs instead, one at a time in a copy of the tree; each must break a promise.
    #[arg(long)]
    bugs: bool,
    /// Of the mistakes only those whose name contains this.
    #[arg(long, default_value = "", requires = "bugs")]
    only: String,
}

/// True when every promise held, or every mistake was found.
pub(crate) fn command(options: &Options) -> Result<bool> {
    if options.bugs {
        return plant(&options.only, options.seeds);
    }
    let mut arguments = vec!["test", "--locked", "-p", "mesh", "--lib", EXPLORE];
    if options.release {
        arguments.push("--release");
    }
    arguments.extend(["--", "--ignored", "--nocapture", "--exact"]);
    let mut cargo = run::cargo(&arguments);
    cargo.env("SIM_RUN", &options.run);
    for (name, value) in [("SIM_FIRST", options.first), ("SIM_SEEDS", options.seeds), ("SIM_LINES", options.lines)] {
        cargo.env(name, value.to_string());
    }
    Ok(run::tee(&mut cargo)?.success)
}

/// Plants each mistake whose name contains `only` and plays `seeds` seeds; true when all were found.
fn plant(only: &str, seeds: u64) -> Result<bool> {
    let tree = run::target().join("slot-bugs/tree");
    fill(&tree)?;
    let mut bugs = bugs()?;
    bugs.retain(|(name, _)| name.contains(only));
    let mut found = 0;
    for (name, text) in &bugs {
        let Some(which) = text.lines().find_map(|line| line.strip_prefix("run: ")) else {
            bail!("{name}.patch has no line `run: NAME` before its first diff");
        };
        let patch = run::root().join(BUGS).join(format!("{name}.patch"));
        apply(&tree, &patch, &[]).with_context(|| format!("{name}.patch does not fit the source any more"))?;
        let how = is_found(&tree, which, seeds);
        apply(&tree, &patch, &["--reverse"])?;
        match how? {
            Some(how) => {
                println!("{name}: found. {how}");
                found += 1;
            }
            None => println!("{name}: MISSED in {seeds} seeds of {which}"),
        }
    }
    println!("{found} of {} planted bugs found", bugs.len());
    Ok(found == bugs.len() && found > 0)
}

/// Name and text of every patch, by name.
fn bugs() -> Result<Vec<(String, String)>> {
    let mut bugs = Vec::new();
    for entry in fs::read_dir(run::root().join(BUGS))? {
        let path = entry?.path();
        if let (Some("patch"), Some(name)) = (path.extension().and_then(|it| it.to_str()), path.file_stem()) {
            bugs.push((name.to_string_lossy().into_owned(), fs::read_to_string(&path)?));
        }
    }
    bugs.sort();
    Ok(bugs)
}

/// Everything that is under version control or new, as it is on disk.
fn fill(copy: &Path) -> Result<()> {
    let mut git = run::command("git");
    let listed = git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).output()?;
    for name in String::from_utf8(listed.stdout)?.lines() {
        let (from, to) = (run::root().join(name), copy.join(name));
        if !from.is_file() {
            continue;
        }
        let text = fs::read(&from)?;
        // What is as it was keeps its time, and cargo what it built of it.
        if fs::read(&to).is_ok_and(|old| old == text) {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap_or(copy))?;
        fs::write(&to, text)?;
    }
    Ok(())
}

fn apply(copy: &Path, patch: &Path, more: &[&str]) -> Result<()> {
    let mut command = run::command("patch");
    command.current_dir(copy).args(["--quiet", "--strip=1", "--force", "--input"]).arg(patch).args(more);
    run::check(&mut command)
}

/// The first line of what the simulator says against it.
fn is_found(copy: &Path, which: &str, seeds: u64) -> Result<Option<String>> {
    let mut cargo = run::cargo(&["test", "--locked", "-p", "mesh", "--lib", EXPLORE]);
    cargo.current_dir(copy).args(["--", "--ignored", "--exact", "--nocapture"]);
    cargo.env("CARGO_TARGET_DIR", run::target().join("slot-bugs/target")).env("RUST_BACKTRACE", "0");
    cargo.env("SIM_RUN", which).env("SIM_FIRST", "1").env("SIM_SEEDS", seeds.to_string()).env("SIM_LINES", "1");
    let output = cargo.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(None);
    }
    let mut lines = text.lines().skip_while(|line| !line.contains(", seed ") || !line.contains(" broken: ["));
    match (lines.next(), lines.next()) {
        (Some(seed), Some(what)) => Ok(Some(format!("{} {}", seed.trim_end_matches('['), what.trim()))),
        (None, _) | (Some(_), None) => bail!("the copy does not build or does not run:\n{text}"),
    }
}
