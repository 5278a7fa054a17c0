//! Collects what a configuration is made from: the named file, the environment, the flags, facts of this machine.
//!
//! Invariants: the only place that reads the environment; a variable that is not UTF-8 is kept readable rather than lost.

use std::fs;
use std::io::Read;
use std::thread;

use super::ServeArgs;
use crate::config::{Facts, File, Flag, Raw, Sources};

/// A configuration file is written by people: whatever is larger is the wrong file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Everything that can be known before the configuration is read.
pub(super) fn gather(arguments: &ServeArgs) -> Sources {
    Sources {
        file: arguments.config.as_ref().map(|path| File { name: path.display().to_string(), text: read(path) }),
        environment: environment(),
        flags: flags(arguments),
        facts: facts(),
    }
}

fn read(path: &std::path::Path) -> Result<String, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX { Err("larger than 1 MiB".to_owned()) } else { Ok(text) }
}

fn environment() -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with("STARLING_"))
        .collect();
    variables.sort();
    variables
}

fn facts() -> Facts {
    Facts {
        host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        cores: thread::available_parallelism().map_or(1, usize::from),
    }
}

/// The flags that were given (interface.md 3).
pub(super) fn flags(arguments: &ServeArgs) -> Vec<Flag> {
    let single = [
        ("--listen", "server.listen", &arguments.listen),
        ("--admin-listen", "server.admin_listen", &arguments.admin_listen),
        ("--mesh-listen", "cluster.mesh_listen", &arguments.mesh_listen),
        ("--advertise", "cluster.advertise", &arguments.advertise),
        ("--node", "cluster.node", &arguments.node),
        ("--ordinal", "cluster.ordinal", &arguments.ordinal),
        ("--data-dir", "store.dir", &arguments.data_dir),
        ("--cluster-key-file", "cluster.key_file", &arguments.cluster_key_file),
        ("--shards", "server.shards", &arguments.shards),
        ("--log", "log.format", &arguments.log),
    ];
    let single = single.into_iter().filter_map(|(name, path, value)| {
        value.as_ref().map(|value| Flag { name, path, raw: Raw::Word(value.clone()) })
    });
    let seeds = (!arguments.seeds.is_empty()).then(|| Flag {
        name: "--seed",
        path: "cluster.seeds",
        raw: Raw::List(arguments.seeds.clone()),
    });
    single.chain(seeds).collect()
}
