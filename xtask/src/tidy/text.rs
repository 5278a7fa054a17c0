//! Rules about every text file: nothing unfinished, nothing that is true on one machine only.
//!
//! Invariant: generated lock files and the vendored client bundle are other people's text and are not judged.

use super::Finding;

/// Files whose content is not ours to word.
fn foreign(path: &str) -> bool {
    path.ends_with(".lock") || path.ends_with("package-lock.json") || path.starts_with("node/assets/client/")
}

/// Words that promise work. Written in two halves so that this file does not find itself.
const UNFINISHED: [(&str, &str); 5] =
    [("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("todo", "!("), ("unimplemented", "!(")];

/// Path beginnings that exist on one machine only.
const MACHINE_PATHS: [(&str, &str); 4] = [("/wo", "rk/"), ("/ro", "ot/"), ("/ho", "me/"), ("/tm", "p/")];

/// Hosts that package clients talk to; which of them is used is the machine's business.
const HOSTS: [(&str, &str); 6] = [
    ("registry.npm", "js.org"),
    ("pypi", ".org"),
    ("files.python", "hosted.org"),
    ("deb.deb", "ian.org"),
    ("index.cra", "tes.io"),
    ("static.cra", "tes.io"),
];

/// The rules that look at every line.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    if foreign(path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (at, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        let mut look = |words: &[(&str, &str)], what: &str, whole_word: bool| {
            let found = words.iter().map(|(head, tail)| format!("{head}{tail}"));
            for word in found.filter(|word| if whole_word { has_word(line, word) } else { has_path(line, word) }) {
                findings.push(Finding::at(path, at, format!("`{word}`: {what}")));
            }
        };
        look(&UNFINISHED, "finish it, or file it and say so in words", true);
        look(&MACHINE_PATHS, "a path of one machine; derive it or take it as an argument", false);
        look(&HOSTS, "a registry's host; leave it to the package client's own settings", false);
    }
    findings
}

/// Whether the word stands alone: letters next to it make it another word.
fn has_word(line: &str, word: &str) -> bool {
    let closed = word.ends_with(char::is_alphanumeric);
    line.match_indices(word).any(|(at, _)| {
        let longer_before = line[..at].ends_with(char::is_alphanumeric);
        let longer_after = closed && line[at + word.len()..].starts_with(char::is_alphanumeric);
        !longer_before && !longer_after
    })
}

/// Whether the text occurs and is not the middle of a longer path or host name.
fn has_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | ')'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(list: &[(&str, &str)]) -> Vec<String> {
        list.iter().map(|(head, tail)| format!("{head}{tail}")).collect()
    }

    #[test]
    fn each_unfinished_mark_is_found_and_longer_words_are_not() {
        for word in joined(&UNFINISHED) {
            assert_eq!(check("a.md", &format!("// {word} later\n")).len(), 1, "{word}");
        }
        let (head, tail) = UNFINISHED[0];
        let longer = format!("MAS{head}{tail} and {head}{tail}S");
        assert_eq!(check("a.md", &longer), []);
    }

    #[test]
    fn each_machine_path_is_found_and_the_middle_of_a_path_is_not() {
        for path in joined(&MACHINE_PATHS) {
            assert_eq!(check("a.md", &format!("see {path}file\n")).len(), 1, "{path}");
            assert_eq!(check("a.md", &format!("let p = \"{path}x\";\n")).len(), 1, "{path}");
            assert_eq!(check("a.md", &format!("see target{path}file\n")), [], "{path}");
        }
    }

    #[test]
    fn each_registry_host_is_found_and_lock_files_are_exempt() {
        for host in joined(&HOSTS) {
            let line = format!("\"resolved\": \"https://{host}/x\"\n");
            assert_eq!(check("a.json", &line).len(), 1, "{host}");
            assert_eq!(check("xtask/e2e/package-lock.json", &line), []);
        }
    }
}
