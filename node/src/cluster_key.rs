//! The cluster key of the files, and its replacement while the node runs.
//!
//! `cluster.key_file` holds the key; a file beside it whose name ends in `.previous`, if there is one, holds the key that is
//! accepted too. They are looked at like the certificate of the client port (`tls`).
//!
//! Invariants:
//! - what the files hold is in no message: keys are told apart by their names;
//! - files that cannot serve change nothing: the old keys go on, it is said once, and the next look tries again;
//! - the current key is read first: whoever replaces both writes `.previous` first, and no look sees the new key alone.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use mesh::{ClusterKey, ClusterKeys};
use tokio::time::sleep;

use crate::{
    config::read_key_file,
    context::Context,
    metrics::{Metrics, ReloadResult},
};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Reads the key, and the previous one if there is one.
///
/// # Errors
/// A sentence that says which file cannot serve, and why.
pub(crate) fn read(path: &Path) -> Result<ClusterKeys, String> {
    let current = key(path)?;
    let previous = previous(path);
    let previous = match previous.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Ok(_) | Err(_) => Some(key(&previous)?),
    };
    // While both files are being replaced they may hold the same for a moment.
    let previous = previous.filter(|previous| previous.name() != current.name());
    Ok(ClusterKeys { current, previous })
}

fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".previous");
    name.into()
}

fn key(path: &Path) -> Result<ClusterKey, String> {
    let bytes = read_key_file(path)?;
    ClusterKey::from_bytes(&bytes).map_err(|error| format!("{} is no cluster key: {error}", path.display()))
}

fn names(keys: &ClusterKeys) -> Vec<String> {
    keys.iter().map(ClusterKey::name).collect()
}

/// Keeps the keys those of the files, for as long as the node lives. `keys` are those it started with.
pub(crate) async fn watch(context: &Context, keys: Option<ClusterKeys>) {
    let (Some(path), Some(keys)) = (&context.config.cluster.key_file, keys) else {
        return std::future::pending().await;
    };
    let (mut used, mut told) = (names(&keys), None);
    loop {
        sleep(LOOK_EVERY).await;
        match look(path, &mut used, context).await {
            Ok(()) => told = None,
            Err(error) if told.as_ref() == Some(&error) => {}
            Err(error) => {
                refused(&context.metrics, &error);
                told = Some(error);
            }
        }
    }
}

async fn look(path: &Path, used: &mut Vec<String>, context: &Context) -> Result<(), String> {
    let keys = read(path)?;
    let found = names(&keys);
    let Some(mesh) = context.mesh.as_ref().filter(|_| found != *used) else { return Ok(()) };
    mesh.rotate(keys.clone()).await.map_err(|error| error.to_string())?;
    context.sid_keys.rotate(&keys);
    context.metrics.cluster_key_reloads.of(ReloadResult::Replaced).inc();
    tracing::info!(before = ?used, now = ?found, "the cluster key was replaced");
    *used = found;
    Ok(())
}

fn refused(metrics: &Metrics, error: &str) {
    metrics.cluster_key_reloads.of(ReloadResult::Refused).inc();
    tracing::error!(%error, "the new cluster key cannot serve; the old one goes on");
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const OLD: &[u8] = b"an old cluster key, 32 bytes or longer";
    const NEW: &[u8] = b"a new cluster key, 32 bytes or longer\n";

    fn name(key: &[u8]) -> String {
        ClusterKey::from_bytes(key).unwrap().name()
    }

    #[test]
    fn the_previous_key_lies_beside_the_current_one_or_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        fs::write(&path, NEW).unwrap();
        assert_eq!(names(&read(&path).unwrap()), [name(NEW)]);
        fs::write(dir.path().join("cluster.key.previous"), OLD).unwrap();
        assert_eq!(names(&read(&path).unwrap()), [name(NEW), name(OLD)]);
        fs::write(dir.path().join("cluster.key.previous"), NEW).unwrap();
        assert_eq!(names(&read(&path).unwrap()), [name(NEW)]);
    }

    #[test]
    fn a_previous_key_that_cannot_serve_is_an_error_that_names_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        fs::write(&path, NEW).unwrap();
        fs::write(dir.path().join("cluster.key.previous"), b"short").unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.contains("cluster.key.previous holds 5 bytes"), "{error}");
    }
}
