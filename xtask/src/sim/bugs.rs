//! Mistakes planted in a copy of the tree, one at a time: a simulator that finds none of them shows nothing.
//!
//! Invariants: the tree itself is never touched; a patch that does not apply any more is an error, not a bug that was found;
//! the last line counts what was found.

use crate::run;
use anyhow::{Context, Result, bail};
use std::path::Path;

/// The patches, and the folder of them.
const BUGS: &str = "mesh/bugs";

/// Copies the tree, plants each mistake and tells the stories; true when each was found and the copy itself is sound.
pub(super) fn command(seeds: u64) -> Result<bool> {
    let copy = run::target().join("sim-bugs");
    let tree = copy.join("tree");
    fill(&tree)?;
    let mut names: Vec<_> = std::fs::read_dir(run::root().join(BUGS))?.collect::<std::io::Result<Vec<_>>>()?;
    names.sort_by_key(std::fs::DirEntry::file_name);
    println!("--- no bug");
    if !sound(&copy, seeds)? {
        bail!("the stories are broken without any planted bug");
    }
    let mut found = 0;
    for entry in &names {
        let name = entry.file_name().to_string_lossy().into_owned();
        println!("--- {name}");
        apply(&tree, &entry.path(), &[])?;
        let missed = sound(&copy, seeds)?;
        apply(&tree, &entry.path(), &["--reverse"])?;
        println!("{name}: {}", if missed { "MISSED" } else { "found" });
        found += usize::from(!missed);
    }
    println!("{found} of {} planted bugs found", names.len());
    Ok(found == names.len())
}

/// The files git knows, as they are now.
fn fill(tree: &Path) -> Result<()> {
    let listed = run::output(run::command("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    for file in listed.lines() {
        let (from, to) = (run::root().join(file), tree.join(file));
        let Ok(content) = std::fs::read(&from) else { continue };
        // What did not change keeps its time, so cargo builds it once.
        if std::fs::read(&to).is_ok_and(|old| old == content) {
            continue;
        }
        std::fs::create_dir_all(to.parent().context("a file has a folder")?)?;
        std::fs::write(&to, content).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}

fn apply(tree: &Path, patch: &Path, how: &[&str]) -> Result<()> {
    let mut git = run::command("git");
    // Outside of any repository, or git would look for the paths in ours.
    git.current_dir(tree).env("GIT_CEILING_DIRECTORIES", tree).args(["apply", "--unidiff-zero"]).args(how).arg(patch);
    run::check(&mut git)
}

/// Whether every story of the copy ends well; one that does not build is an error.
fn sound(copy: &Path, seeds: u64) -> Result<bool> {
    let tree = copy.join("tree");
    let cargo = |extra: &[&str]| {
        let mut cargo = run::cargo(&["test", "--release", "--locked", "-p", "mesh", "--lib"]);
        cargo.args(extra).current_dir(&tree).env("CARGO_TARGET_DIR", copy.join("target")).env("RUST_BACKTRACE", "0");
        // A mistake may leave code that nobody uses.
        cargo.env("RUSTFLAGS", "--cap-lints=warn").env("SIM_SEEDS", seeds.to_string());
        cargo
    };
    run::check(&mut cargo(&["--no-run"]))?;
    let told = ["--", "--ignored", "--exact", "--nocapture", "membership::tests::command::stories"];
    Ok(run::tee(&mut cargo(&told))?.success)
}
