//! Running the commands that the documentation shows, so that a stale page fails the build.
//!
//! In a page, a block opened with ```` ```sh test ```` is run by bash and must succeed; a block with `file=NAME` after its
//! language is first written to that file. All of a page's blocks form one script in an empty folder, with the built
//! binaries on the search path and the npm packages of `xtask/e2e` at hand.
//!
//! Invariants: what a page started is stopped when its script ends, and the script ends in time.

use crate::counts::Count;
use crate::{install, run, steps};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// How long the commands of one page may take together, in seconds.
const PAGE_SECONDS_MAX: &str = "120";

/// What a block of a page asks for.
#[derive(Debug, PartialEq, Eq)]
enum Block {
    /// Shell commands, and the line of the page where they begin.
    Commands { line: usize, text: String },
    /// A file that the commands read.
    File { name: String, text: String },
}

/// Runs every page that has commands to run; counts the blocks.
pub(crate) fn run() -> Result<Count> {
    install::npm()?;
    steps::with_binaries(&mut run::command("true"))?;
    let mut blocks = 0;
    for page in pages()? {
        let text = std::fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
        let parsed = parse(&text).with_context(|| format!("in {}", page.display()))?;
        let commands = parsed.iter().filter(|block| matches!(block, Block::Commands { .. })).count();
        if commands > 0 {
            let name = page.strip_prefix(run::root()).unwrap_or(&page).display().to_string();
            println!("--- {name}: {commands} blocks");
            run_page(&name, &parsed)?;
            blocks += commands;
        }
    }
    if blocks == 0 {
        bail!("no page has a command to run");
    }
    Ok(Count::passed(blocks))
}

/// README.md and every Markdown file below docs/, in order.
fn pages() -> Result<Vec<PathBuf>> {
    let mut pages = vec![run::root().join("README.md")];
    let mut folders = vec![run::root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.retain(|page| page.is_file());
    pages.sort();
    Ok(pages)
}

/// The blocks of a page that are to be run or written, in order.
fn parse(page: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let mut text = String::new();
        loop {
            let Some((_, line)) = lines.next() else { bail!("the block opened on line {} is never closed", index + 1) };
            if line.trim_start().starts_with("```") {
                break;
            }
            text.push_str(line);
            text.push('\n');
        }
        let mut words = info.split_whitespace();
        match (words.next(), words.next()) {
            (Some("sh"), Some("test")) => blocks.push(Block::Commands { line: index + 1, text }),
            (Some(_), Some(word)) => {
                if let Some(name) = word.strip_prefix("file=") {
                    blocks.push(Block::File { name: name.to_owned(), text });
                }
            }
            _ => {}
        }
    }
    Ok(blocks)
}

fn run_page(name: &str, blocks: &[Block]) -> Result<()> {
    let folder = run::target().join("docs").join(name.replace('/', "-"));
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    std::os::unix::fs::symlink(install::e2e().join("node_modules"), folder.join("node_modules"))?;
    // What the page left running is stopped before the next page wants the same ports.
    let mut script = String::from("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n");
    for block in blocks {
        match block {
            Block::Commands { line, text } => script.push_str(&format!("echo '> {name}:{line}'\n{text}")),
            Block::File { name, text } => write_inside(&folder, name, text)?,
        }
    }
    let path = std::env::join_paths(
        std::iter::once(steps::binaries()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let mut bash = run::command("timeout");
    bash.args(["--kill-after=10", PAGE_SECONDS_MAX, "bash", "-c", &script]).current_dir(&folder).env("PATH", path);
    if !run::tee(&mut bash)?.success {
        bail!("{name}: a command failed, or the page took longer than {PAGE_SECONDS_MAX} s");
    }
    Ok(())
}

fn write_inside(folder: &Path, name: &str, text: &str) -> Result<()> {
    if Path::new(name).components().count() != 1 {
        bail!("`file={name}`: a plain file name is wanted");
    }
    std::fs::write(folder.join(name), text).with_context(|| format!("cannot write {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_blocks_are_taken_and_in_order() {
        let page = "# T\n```sh\nrm -rf x\n```\n```js file=a.mjs\nlet x;\n```\n```sh test\necho one\n\necho two\n```\n";
        let file = Block::File { name: "a.mjs".into(), text: "let x;\n".into() };
        let commands = Block::Commands { line: 8, text: "echo one\n\necho two\n".into() };
        assert_eq!(parse(page).unwrap(), [file, commands]);
    }

    #[test]
    fn a_block_that_is_never_closed_is_an_error() {
        assert!(parse("```sh test\necho one\n").is_err());
    }

    #[test]
    fn a_block_cannot_write_outside_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write_inside(folder.path(), "../x", "").is_err());
        assert!(write_inside(folder.path(), "x", "text").is_ok());
    }

    #[test]
    fn every_page_of_the_tree_parses() {
        for page in pages().unwrap() {
            parse(&std::fs::read_to_string(page).unwrap()).unwrap();
        }
    }
}
