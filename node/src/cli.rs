//! The command line: `starling serve` and the commands around it.
//!
//! Invariants: exit codes are those of interface.md 3; what a command answers goes to standard output, everything else to
//! standard error; a closed pipe ends the output and nothing else.

mod ask;
mod config;
mod dev;
mod doctor;
mod explain;
mod history;
mod http;
mod sources;
mod status;

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{Config, Problem};

/// What runs a node: returns when the node has stopped, an error if it could not start or had to give up.
pub type Serve = fn(Config) -> Result<(), anyhow::Error>;

/// How a command ended (interface.md 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked to.
    Ok = 0,
    /// It failed.
    Failed = 1,
    /// It was called wrongly.
    Usage = 2,
    /// The node could not be reached.
    Unreachable = 3,
    /// The node answered that something is wrong.
    Unhealthy = 4,
    /// The configuration is bad or unsafe.
    BadConfig = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

#[derive(Debug, Parser)]
#[command(name = "starling", version, about = "Scales Socket.IO without Redis and without sticky sessions.")]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node (the default). Without a configuration file it serves development defaults on loopback.
    Serve(ServeArgs),
    /// Run a cluster of several nodes on this machine and print where to look at it.
    Dev(DevArgs),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask a running node how the cluster is; exits 0 if healthy, 4 if not, 3 if nobody answers.
    Status(StatusArgs),
    /// Ask a running node who orders a room, who holds its second copy and who votes on it.
    Explain(ExplainArgs),
    /// Check whether this machine can run the node that the configuration describes; exits 1 if not.
    Doctor(DoctorArgs),
    /// Save or bring back the stored history of a node that is not running.
    #[command(subcommand)]
    History(HistoryCommand),
    /// Print a script that completes commands and flags in a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// The flags of `serve`; each wins over the environment and the file.
#[derive(Debug, Default, Args)]
struct ServeArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Client port [server.listen].
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Admin port [server.admin_listen].
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<String>,
    /// UDP address for the other nodes [cluster.mesh_listen].
    #[arg(long, value_name = "ADDR")]
    mesh_listen: Option<String>,
    /// Address the other nodes are told to use [cluster.advertise].
    #[arg(long, value_name = "ADDR")]
    advertise: Option<String>,
    /// Name of this node; a trailing -N is its ordinal [cluster.node].
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Number of this node, unique in the cluster [cluster.ordinal].
    #[arg(long, value_name = "N")]
    ordinal: Option<String>,
    /// A node to join; repeatable [cluster.seeds].
    #[arg(long = "seed", value_name = "HOST:PORT")]
    seeds: Vec<String>,
    /// Directory of the store [store.dir].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// File with the secret of the cluster [cluster.key_file].
    #[arg(long, value_name = "FILE")]
    cluster_key_file: Option<String>,
    /// Threads that serve clients [server.shards].
    #[arg(long, value_name = "N")]
    shards: Option<String>,
    /// Format of the log, text or json [log.format].
    #[arg(long, value_name = "FORMAT")]
    log: Option<String>,
}

#[derive(Debug, Args)]
struct DevArgs {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=20))]
    nodes: u16,
    /// Client port of the first node; admin is +1, mesh +2, the next node +10.
    #[arg(long, value_name = "PORT", default_value_t = 3000, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    port: u16,
    /// Where the nodes keep their data.
    #[arg(long, value_name = "DIR", default_value = "./starling-data/dev")]
    data_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration: file, environment and flags.
    Check {
        /// Print the problems as JSON, to standard output.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        serve: ServeArgs,
    },
    /// Print the configuration in force.
    Show {
        /// Say where each value came from.
        #[arg(long)]
        origin: bool,
        /// Print it as JSON, with origins.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        serve: ServeArgs,
    },
    /// Write an example file with every key, to FILE or to standard output.
    Init {
        /// File to create; an existing one is left alone.
        file: Option<PathBuf>,
    },
    /// Print every environment variable that is configuration.
    Env {
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct DoctorArgs {
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum HistoryCommand {
    /// Write everything that a data directory holds, as lines of JSON.
    Export {
        /// File to create; standard output if left out.
        file: Option<PathBuf>,
        #[command(flatten)]
        dir: HistoryArgs,
    },
    /// Bring what `export` wrote into a data directory: all of it, or nothing.
    Import {
        /// File that `export` wrote.
        file: PathBuf,
        #[command(flatten)]
        dir: HistoryArgs,
    },
}

#[derive(Debug, Args)]
struct HistoryArgs {
    /// Data directory of the node [store.dir].
    #[arg(long, value_name = "DIR", default_value = "./starling-data")]
    data_dir: PathBuf,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Admin address of the node to ask.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3001")]
    admin: String,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ExplainArgs {
    /// The room.
    room: String,
    /// Its namespace.
    #[arg(long, value_name = "NAME", default_value = "/")]
    namespace: String,
    /// Admin address of the node to ask.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3001")]
    admin: String,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Does what the command line of this process says. Usage errors end the process with code 2.
pub fn run(serve: Serve) -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(arguments) => run_serve(&arguments, serve),
        Command::Dev(arguments) => dev::run(arguments),
        Command::Config(command) => config::run(&command),
        Command::Status(arguments) => status::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::History(command) => history::run(&command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "starling", &mut script);
            say(String::from_utf8_lossy(&script).trim_end());
            Exit::Ok
        }
        Command::Version { json: true } => {
            say(serde_json::json!({ "name": "starling", "version": env!("CARGO_PKG_VERSION") }));
            Exit::Ok
        }
        Command::Version { json: false } => {
            say(format_args!("starling {}", env!("CARGO_PKG_VERSION")));
            Exit::Ok
        }
    }
    .into()
}

fn run_serve(arguments: &ServeArgs, serve: Serve) -> Exit {
    let config = match crate::config::load(&sources::gather(arguments)) {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(complain);
            loaded.config
        }
        Err(problems) => return report(&problems),
    };
    match serve(config) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            complain(format_args!("error: {error:#}"));
            Exit::Failed
        }
    }
}

/// Prints problems of the configuration, one line each.
fn report(problems: &[Problem]) -> Exit {
    for problem in problems {
        complain(problem);
    }
    Exit::BadConfig
}

/// Writes a line to standard output; a reader that went away is no error of ours.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Writes a line to standard error.
fn complain(line: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
