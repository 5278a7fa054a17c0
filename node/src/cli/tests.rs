//! Tests of the command line itself: what clap makes of words, and flags of keys.

use clap::CommandFactory;

use super::*;
use crate::config::Raw;

fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("starling").chain(words.iter().copied()))
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn flags_without_a_command_mean_serve() {
    let cli = parse(&["--listen", "127.0.0.1:4000"]).unwrap();
    assert!(cli.command.is_none());
    assert_eq!(cli.serve.listen.as_deref(), Some("127.0.0.1:4000"));
}

#[test]
fn every_flag_of_serve_sets_a_key_that_exists() {
    let words = "serve --listen a --admin-listen b --mesh-listen c --advertise d --node e --ordinal f --seed g --seed h \
                 --data-dir i --cluster-key-file j --shards k --log l";
    let cli = parse(&words.split_whitespace().collect::<Vec<_>>()).unwrap();
    let Some(Command::Serve(arguments)) = cli.command else { panic!("not serve") };
    let flags = sources::flags(&arguments);
    assert_eq!(flags.len(), 11);
    for flag in &flags {
        assert!(crate::config::KEYS.iter().any(|key| key.path == flag.path), "{}", flag.path);
    }
    let seeds = flags.iter().find(|flag| flag.name == "--seed").unwrap();
    assert_eq!(seeds.raw, Raw::List(vec!["g".to_owned(), "h".to_owned()]));
}

#[test]
fn wrong_words_are_usage_errors() {
    for words in [
        &["nonsense"][..],
        &["--bogus"],
        &["dev", "--nodes", "0"],
        &["dev", "--nodes", "x"],
        &["config"],
        &["status", "x"],
    ] {
        assert_eq!(parse(words).unwrap_err().exit_code(), 2, "{words:?}");
    }
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let codes = [Exit::Ok, Exit::Failed, Exit::Usage, Exit::Unreachable, Exit::Unhealthy, Exit::BadConfig];
    assert_eq!(codes.map(|exit| exit as u8), [0, 1, 2, 3, 4, 78]);
}
