//! The manifests: rendered by kustomize, validated against three Kubernetes versions, and checked for agreement with each
//! other and with the binary.
//!
//! Invariant: what is judged is what `kubectl kustomize` renders, never a file on its own.

mod lint;

use crate::counts::Count;
use crate::{install, run, steps};
use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The oldest version we support, one in the middle, the newest whose schemas are to be had.
const VERSIONS: [&str; 3] = ["1.30", "1.33", "1.37"];
const BASE: &str = "k8s/base";

/// Renders, validates and lints `k8s/base`; counts each validation and each rule.
pub(crate) fn run() -> Result<Count> {
    let folder = run::target().join("k8s");
    std::fs::create_dir_all(&folder)?;
    let rendered = folder.join("base.yaml");
    let yaml = run::output(run::command(install::kubectl()?).args(["kustomize", BASE]))?;
    std::fs::write(&rendered, &yaml)?;
    let python = install::python()?;
    for version in VERSIONS {
        println!("validating against Kubernetes {version}");
        let mut validate = run::command(python.with_file_name("kubernetes-validate"));
        run::check(validate.args(["--strict", "--kubernetes-version", version]).arg(&rendered))?;
    }
    let to_json = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(open(sys.argv[1]))), sys.stdout)";
    let json = run::output(run::command(&python).args(["-c", to_json]).arg(&rendered))?;
    let objects: Vec<Value> = serde_json::from_str(&json).context("cannot read the rendered manifests")?;
    let findings = lint::check(&objects, env!("CARGO_PKG_VERSION"));
    findings.iter().for_each(|finding| println!("k8s: {finding}"));
    if !findings.is_empty() {
        bail!("{} findings in what {BASE} renders", findings.len());
    }
    config_is_accepted(&objects)?;
    Ok(Count::passed(VERSIONS.len() + lint::RULE_COUNT + 1))
}

/// The configuration inside the ConfigMap is one that the binary accepts.
fn config_is_accepted(objects: &[Value]) -> Result<()> {
    let config = lint::config(objects).context("no ConfigMap holds starling.toml")?;
    let folder = run::target().join("k8s");
    // The key is mounted from a Secret in a cluster; here any file does.
    let key = folder.join("cluster.key");
    std::fs::write(&key, "a key for checking the configuration only")?;
    let file = folder.join("starling.toml");
    std::fs::write(&file, config)?;
    let mut check = run::command(steps::binaries().join("starling"));
    check.args(["config", "check", "--config"]).arg(&file);
    // What the manifest sets per pod, so that the check sees the whole configuration.
    check.env("STARLING_CLUSTER__KEY_FILE", &key).env("STARLING_CLUSTER__NODE", "starling-0");
    steps::with_binaries(&mut check)?;
    run::check(&mut check).context("the configuration in the ConfigMap is refused")
}
