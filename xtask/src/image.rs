//! `cargo xtask image`: the static binary and the folder that the Dockerfile copies.
//!
//! Invariant: the binary has no dynamic section, since the image has no loader and no libc.

use crate::run;
use anyhow::{Context, Result, bail};

/// The target that carries its own libc when told to.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds `target/image`; false never, an error says what went wrong.
pub(crate) fn command() -> Result<bool> {
    let mut build =
        run::cargo(&["build", "--release", "--locked", "-p", "node", "--bin", "starling", "--target", TARGET]);
    run::check(build.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    let binary = run::target().join(TARGET).join("release/starling");
    let bytes = std::fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    if !is_static(&bytes) {
        bail!("{} asks for a loader: it would not start in an empty image", binary.display());
    }
    // Below the root of the tree wherever cargo puts its output, because that is where an image build looks.
    let image = run::root().join("target/image");
    std::fs::create_dir_all(image.join("data"))?;
    // An empty folder is not copied by every builder.
    std::fs::write(image.join("data/.keep"), "")?;
    std::fs::copy(&binary, image.join("starling"))?;
    println!(
        "target/image is ready ({:.1} MiB): docker build -t starling:{} .",
        mib(&bytes),
        env!("CARGO_PKG_VERSION")
    );
    Ok(true)
}

fn mib(bytes: &[u8]) -> f64 {
    bytes.len() as f64 / (1024.0 * 1024.0)
}

/// Whether this ELF file (64 bit, little endian) has no program header that names a loader.
fn is_static(elf: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, size: usize| -> Option<u64> {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    };
    let header = || {
        let start = usize::try_from(number(0x20, 8)?).ok()?;
        let (size, count) = (usize::try_from(number(0x36, 2)?).ok()?, usize::try_from(number(0x38, 2)?).ok()?);
        Some((start, size, count))
    };
    let Some((start, size, count)) = header().filter(|_| elf.starts_with(b"\x7fELF\x02\x01")) else { return false };
    (0..count).all(|index| number(start + index * size, 4).is_some_and(|kind| kind != u64::from(INTERPRETER)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of one header block and one program header of this kind.
    fn elf(kind: u8) -> Vec<u8> {
        let mut file = vec![0; 0x40 + 0x38];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (file[0x20], file[0x36], file[0x38], file[0x40]) = (0x40, 0x38, 1, kind);
        file
    }

    #[test]
    fn a_binary_that_names_a_loader_is_not_static() {
        assert!(is_static(&elf(1)));
        assert!(!is_static(&elf(3)));
    }

    #[test]
    fn what_is_not_an_executable_or_is_cut_short_is_not_static() {
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(&elf(1)[..0x40]));
    }

    #[test]
    fn this_test_itself_needs_a_loader() {
        assert!(!is_static(&std::fs::read(std::env::current_exe().unwrap()).unwrap()));
    }
}
