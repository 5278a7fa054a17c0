//! What the documentation shows of Rust is code that is compiled and tested.
//!
//! Invariant: every `rust` block, and every line of code in a table, stands in one of the examples, line for line.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test that called them")]

use std::{fs, path::Path};

/// A file of this repository.
fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

/// The lines of a text without indentation.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

/// The pieces of Rust in a page.
fn pieces(page: &str) -> Vec<Vec<&str>> {
    let blocks = page.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).map(lines);
    let cells = page.lines().filter_map(|line| line.rsplit_once("| `")?.1.strip_suffix("` |"));
    let code = cells.filter(|cell| cell.contains("=>"));
    blocks.chain(code.map(|cell| vec![cell])).collect()
}

#[test]
fn what_the_pages_show_of_rust_stands_in_the_examples() {
    let examples = ["node/examples/chat.rs", "node/examples/verbs.rs"].map(read);
    let mut shown = 0;
    for page in ["docs/reference/handler.md", "docs/how-to/embed.md"] {
        let text = read(page);
        for piece in pieces(&text) {
            let stands = |example: &String| lines(example).windows(piece.len()).any(|window| window == piece);
            assert!(examples.iter().any(stands), "{page} shows what no example has: {piece:#?}");
            shown += 1;
        }
    }
    assert!(shown >= 18, "only {shown} pieces were found: the pages are written differently now");
}
