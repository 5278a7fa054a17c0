//! Rules about manifests: which crate may depend on which, and that every crate takes the workspace's lints.
//!
//! Invariant: directions are read from `[dependencies]` and `[build-dependencies]`; tests may use what they like.

use super::{File, Finding};
use anyhow::{Context, Result};
use toml::Table;

/// What a crate may not depend on. The first three know nothing of each other, `node` composes them; `protocol` has no
/// runtime and no socket in its manifest, which proves that it does no IO.
const FORBIDDEN: [(&str, &[&str]); 5] = [
    (
        "protocol",
        &[
            "mesh",
            "persistence",
            "node",
            "loadtest",
            "tokio",
            "tokio-util",
            "quinn",
            "hyper",
            "axum",
            "socket2",
            "sled",
        ],
    ),
    ("mesh", &["protocol", "persistence", "node", "loadtest", "hyper", "axum", "sled", "serde_json"]),
    ("persistence", &["protocol", "mesh", "node", "loadtest", "quinn", "hyper", "axum"]),
    ("loadtest", &["mesh", "persistence", "node"]),
    // It may speak the wire (`protocol`, as the load generator does), and runs the rest as programs.
    ("xtask", &["mesh", "persistence", "node", "loadtest"]),
];

/// Every manifest of a workspace member.
pub(super) fn check(files: &[File]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for member in members(files)? {
        let path = format!("{member}/Cargo.toml");
        let Some(file) = files.iter().find(|file| file.path == path) else {
            findings.push(Finding::of("Cargo.toml", format!("member `{member}` has no manifest")));
            continue;
        };
        findings.extend(manifest(&path, &file.text)?);
    }
    Ok(findings)
}

fn members(files: &[File]) -> Result<Vec<String>> {
    let root = files.iter().find(|file| file.path == "Cargo.toml").context("no root manifest")?;
    let root: Table = root.text.parse().context("the root manifest is not TOML")?;
    let members = root.get("workspace").and_then(|w| w.get("members")).and_then(|m| m.as_array());
    let members = members.context("the root manifest lists no members")?;
    Ok(members.iter().filter_map(|member| member.as_str().map(str::to_owned)).collect())
}

fn manifest(path: &str, text: &str) -> Result<Vec<Finding>> {
    let manifest: Table = text.parse().with_context(|| format!("{path} is not TOML"))?;
    let mut findings = Vec::new();
    let lints = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(|value| value.as_bool());
    if lints != Some(true) {
        findings.push(Finding::of(path, "take the workspace's lints: `[lints] workspace = true`"));
    }
    let name = manifest.get("package").and_then(|package| package.get("name")).and_then(|name| name.as_str());
    let name = name.with_context(|| format!("{path} names no package"))?;
    let forbidden = FORBIDDEN.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, forbidden)| forbidden);
    for section in ["dependencies", "build-dependencies"] {
        let dependencies = manifest.get(section).and_then(|value| value.as_table());
        for dependency in dependencies.iter().flat_map(|table| table.keys()) {
            if forbidden.contains(&dependency.as_str()) {
                findings.push(Finding::of(path, format!("`{name}` must not depend on `{dependency}`")));
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINTS: &str = "[lints]\nworkspace = true\n";

    #[test]
    fn every_forbidden_direction_is_found() {
        for (name, forbidden) in FORBIDDEN {
            for dependency in forbidden {
                let text = format!(
                    "[package]\nname = \"{name}\"\n{LINTS}[dependencies]\n{dependency}.workspace = true\nbytes = \"1\"\n"
                );
                assert_eq!(manifest("x/Cargo.toml", &text).unwrap().len(), 1, "{name} -> {dependency}");
            }
        }
    }

    #[test]
    fn the_node_may_compose_and_tests_may_use_what_they_like() {
        let node =
            format!("[package]\nname = \"node\"\n{LINTS}[dependencies]\nmesh.workspace = true\nprotocol = \"1\"\n");
        assert_eq!(manifest("node/Cargo.toml", &node).unwrap(), []);
        let test = format!("[package]\nname = \"protocol\"\n{LINTS}[dev-dependencies]\ntokio = \"1\"\n");
        assert_eq!(manifest("protocol/Cargo.toml", &test).unwrap(), []);
    }

    #[test]
    fn a_crate_without_the_workspace_lints_is_found() {
        assert_eq!(manifest("x/Cargo.toml", "[package]\nname = \"node\"\n").unwrap().len(), 1);
        let off = "[package]\nname = \"node\"\n[lints]\nworkspace = false\n";
        assert_eq!(manifest("x/Cargo.toml", off).unwrap().len(), 1);
    }

    #[test]
    fn a_member_without_a_manifest_is_found() {
        let root = File { path: "Cargo.toml".into(), text: "[workspace]\nmembers = [\"ghost\"]\n".into() };
        assert_eq!(check(&[root]).unwrap().len(), 1);
    }
}
