//! The data directory: can it be written, is there room, and can the store in it be opened.
//!
//! Invariants: what is written for a try is removed; the store is opened as a copy, so that it is neither repaired nor
//! moved aside by somebody who only looks.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use persistence::{Kind, Status};

use super::Finding;
use crate::clock;
use crate::config::{Config, StoreKind};

const DIRECTORY: &str = "data directory";
const STORE: &str = "store";
const MIB: u64 = 1 << 20;
/// Free space below which the store takes nothing more.
const FREE_MIN: u64 = 64 * MIB;
/// The largest store that is copied to be looked at.
const COPIED_MAX: u64 = 1024 * MIB;
/// A commit is due this often: a disk that takes longer is always behind.
const SYNC_MAX: Duration = Duration::from_millis(50);

/// Looks at the directory, its file system and the store in it.
pub(super) fn directory(config: &Config) -> Vec<Finding> {
    let dir = &config.store.dir;
    if config.store.kind == StoreKind::Memory {
        return vec![Finding::ok(STORE, "in memory: history ends with the process")];
    }
    let Some(existing) = dir.ancestors().map(or_here).find(|path| path.exists()) else {
        return vec![Finding::fail(DIRECTORY, format!("{} cannot be reached", dir.display()), "set store.dir")];
    };
    let mut findings = vec![writable(dir, &existing)];
    findings.extend(room(&existing, config.store.max_bytes.0));
    findings.push(store(dir));
    findings
}

/// The empty path is the directory we are in.
fn or_here(path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_path_buf() }
}

fn writable(dir: &Path, existing: &Path) -> Finding {
    let to_do = "give it to the user that runs the node (chown), or set store.dir";
    if dir.exists() && !dir.is_dir() {
        return Finding::fail(
            DIRECTORY,
            format!("{} is not a directory", dir.display()),
            "remove it, or set store.dir",
        );
    }
    match sync_time(existing) {
        Err(error) => Finding::fail(DIRECTORY, format!("{} cannot be written: {error}", existing.display()), to_do),
        Ok(took) if took > SYNC_MAX => {
            let found = format!("{} takes {} ms to make a page durable", existing.display(), took.as_millis());
            Finding::warn(DIRECTORY, found, "use a local SSD: until a write is durable a hard kill loses it")
        }
        Ok(took) if dir.exists() => {
            Finding::ok(DIRECTORY, format!("{} can be written, durable in {} ms", dir.display(), took.as_millis()))
        }
        Ok(_) => Finding::ok(DIRECTORY, format!("{} does not exist and can be made", dir.display())),
    }
}

/// How long a small write takes to become durable.
fn sync_time(dir: &Path) -> io::Result<Duration> {
    let probe = dir.join(format!(".starling-doctor-{}", std::process::id()));
    let begun = clock::now();
    let written = File::create_new(&probe).and_then(|mut file| {
        file.write_all(&[0; 4096])?;
        file.sync_all()
    });
    let took = begun.elapsed();
    let removed = fs::remove_file(&probe);
    written.and(removed).map(|()| took)
}

fn room(existing: &Path, max_bytes: u64) -> Option<Finding> {
    const ABOUT: &str = "disk";
    let disk = rustix::fs::statvfs(existing).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let (free_mib, wanted_mib) = (free / MIB, max_bytes / MIB);
    let to_do = "free some space, or lower store.max_bytes";
    Some(if free < FREE_MIN {
        Finding::fail(ABOUT, format!("{free_mib} MiB are free: nothing can be stored"), to_do)
    } else if free < max_bytes && !persistence::holds_store(existing) {
        Finding::warn(ABOUT, format!("{free_mib} MiB are free, store.max_bytes is {wanted_mib} MiB"), to_do)
    } else {
        Finding::ok(ABOUT, format!("{free_mib} MiB are free"))
    })
}

fn store(dir: &Path) -> Finding {
    if !persistence::holds_store(dir) {
        return Finding::ok(STORE, "there is none yet");
    }
    match persistence::is_in_use(dir) {
        Ok(true) => return Finding::ok(STORE, "it is in use by a running node"),
        Ok(false) => {}
        Err(error) => return unreadable(&error.to_string()),
    }
    match persistence::store_bytes(dir) {
        Ok(bytes) if bytes > COPIED_MAX => {
            Finding::ok(STORE, format!("{} MiB, too large to be opened for a look", bytes / MIB))
        }
        Ok(bytes) => opened(dir, bytes).unwrap_or_else(|error| unreadable(&error.to_string())),
        Err(error) => unreadable(&error.to_string()),
    }
}

fn unreadable(error: &str) -> Finding {
    Finding::fail(
        STORE,
        format!("it cannot be read: {error}"),
        "give its files to the user that runs the node (chown -R)",
    )
}

/// Opens a copy.
fn opened(dir: &Path, bytes: u64) -> io::Result<Finding> {
    let copy = Copy::of(dir)?;
    let opened = match persistence::open(Kind::Sled(persistence::Config::new(&copy.0)), clock::wall_ms()) {
        Ok(opened) => opened,
        Err(error) => return Ok(Finding::fail(STORE, error.to_string(), "run the version that wrote it")),
    };
    let status = opened.store.status();
    // The copy is thrown away: how it closes does not matter.
    let _ = opened.store.close();
    if opened.quarantined.is_some() {
        let to_do = "the node moves it aside and starts with no history; look at the disk (dmesg), copy the directory if it matters";
        return Ok(Finding::fail(STORE, "it is damaged", to_do));
    }
    Ok(match status {
        Status::Ok if opened.clean => Finding::ok(STORE, format!("{} MiB, closed cleanly", bytes / MIB)),
        Status::Ok => Finding::ok(STORE, format!("{} MiB, not closed cleanly: its rooms get a new epoch", bytes / MIB)),
        Status::Degraded(reason) => unreadable(&reason),
    })
}

/// A copy of a store that goes when it was looked at.
struct Copy(PathBuf);

impl Copy {
    fn of(dir: &Path) -> io::Result<Copy> {
        let copy = Copy(std::env::temp_dir().join(format!("starling-doctor-{}", std::process::id())));
        fs::create_dir(&copy.0)?;
        persistence::copy_store(dir, &copy.0)?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What cannot be removed is in the directory of temporary files, which is where it may be.
        let _ = fs::remove_dir_all(&self.0);
    }
}
