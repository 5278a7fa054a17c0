//! Running other programs: where the tree is, how a child's output is shown and kept, how a failure reads.
//!
//! Invariants: every child starts in the root of the tree unless its caller says otherwise; output is shown as it comes
//! and kept whole, so that a count can be read from it afterwards.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The root of the repository, as cargo says when it runs us: a target folder shared by two clones may hold a program that
/// was built in the other one.
pub(crate) fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.parent().map_or_else(|| here.clone(), Path::to_path_buf)
}

/// Where cargo puts its output: `CARGO_TARGET_DIR`, else `target/`.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A command that starts in the root of the tree with nothing on its standard input.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// `cargo` with these arguments; the same toolchain that built this program.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).env("CARGO_TERM_PROGRESS_WHEN", "never");
    // What cargo tells this program about its own package would look like a change to build scripts that ask for it, and
    // rebuild half the tree.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Runs a child to its end with its output shown as it comes; an error names the command when it fails.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// What a finished child printed, both streams in the order they were written, and whether it exited with 0.
pub(crate) struct Finished {
    pub(crate) success: bool,
    pub(crate) output: String,
}

/// Runs a child to its end, shows its output as it comes and keeps it.
pub(crate) fn tee(command: &mut Command) -> Result<Finished> {
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    command.stdout(writer.try_clone().context("cannot copy a pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", shown(command)))?;
    // The command value holds the write ends; while it does, the reader below would never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut output = String::new();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).context("cannot read a child's output")? > 0 {
        let text = String::from_utf8_lossy(&line);
        print!("{text}");
        output.push_str(&text);
        line.clear();
    }
    let status = child.wait().context("cannot wait for a child")?;
    Ok(Finished { success: status.success(), output })
}

/// Standard output of a child that must succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        bail!("{} ended with {}", shown(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed bytes that are not UTF-8", shown(command)))
}

/// The commit that was measured, and whether the tree had changes on top of it.
pub(crate) fn commit() -> Result<String> {
    let hash = output(command("git").args(["rev-parse", "--short", "HEAD"]))?;
    let changes = output(command("git").args(["status", "--porcelain", "--untracked-files=no"]))?;
    Ok(format!("{}{}", hash.trim(), if changes.is_empty() { "" } else { " with changes" }))
}

/// The machine that measures: processor, cores, memory, kernel.
pub(crate) fn machine() -> Result<String> {
    let field = |file: &str, name: &str| -> Result<String> {
        let text = std::fs::read_to_string(file)?;
        let line = text.lines().find(|line| line.starts_with(name)).with_context(|| format!("{file} has no {name}"))?;
        Ok(line.split_once(':').map_or("", |(_, value)| value).trim().to_owned())
    };
    Ok(format!(
        "{} ({} cores, {} of memory, Linux {})",
        field("/proc/cpuinfo", "model name")?,
        std::thread::available_parallelism()?,
        field("/proc/meminfo", "MemTotal")?,
        std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
    ))
}

/// The first of these programs that the search path has.
pub(crate) fn which(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    names.iter().find_map(|name| std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()))
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_of_a_child_are_kept_in_order() {
        let finished = tee(command("sh").args(["-c", "echo one; echo two >&2; echo three; exit 3"])).unwrap();
        assert_eq!(finished.output, "one\ntwo\nthree\n");
        assert!(!finished.success);
    }

    #[test]
    fn a_failed_check_names_the_command() {
        let error = check(command("sh").args(["-c", "exit 7"])).unwrap_err();
        assert!(error.to_string().starts_with("sh -c exit 7 ended with"), "{error}");
    }

    #[test]
    fn a_program_that_does_not_exist_is_not_found() {
        assert_eq!(which(&["no-such-program-here"]), None);
        assert!(which(&["no-such-program-here", "sh"]).is_some());
    }
}
