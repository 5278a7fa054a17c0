//! What the command line accepts and what it refuses, with the reason people read.

use super::*;

fn check(line: &str) -> Result<Settings, String> {
    let words = std::iter::once("loadtest").chain(line.split_whitespace());
    let Command::Run(args) = Cli::try_parse_from(words).map_err(|error| error.to_string())?.command else {
        return Err("not a run".to_owned());
    };
    args.check(20_000).map_err(|error| error.to_string())
}

#[test]
fn the_defaults_are_one_room_and_ten_messages_a_second() {
    let settings = check("run broadcast --target http://127.0.0.1:3000").unwrap();
    assert_eq!(settings.pace, Pace::Open { per_second: 10.0 });
    assert_eq!((settings.publishers, settings.rooms, settings.procs, settings.payload), (1, 1, 1, 128));
    assert_eq!(settings.plan.to_string(), "0..1000@1s, hold 30s");
}

#[test]
fn baseline_has_the_steps_of_the_talk_and_five_times_as_many() {
    let settings = check("run baseline --target http://127.0.0.1:3000 --arrivals 2500 --duration 1s").unwrap();
    assert!(settings.plan.to_string().starts_with("0..2500@1s, hold 1s, 2500..3000@200ms, hold 1s, 3000..3500"));
    assert_eq!(settings.plan.peak(), 17_500);
}

#[test]
fn another_machine_needs_permission() {
    let refused = check("run broadcast --target http://192.0.2.1:3000").unwrap_err();
    assert!(refused.contains("--allow-remote"), "{refused}");
    check("run broadcast --target http://192.0.2.1:3000 --allow-remote").unwrap();
}

#[test]
fn members_that_fit_no_process_are_refused_with_what_would_do() {
    let line = "run broadcast --target http://127.0.0.1:3000 --target http://127.0.0.1:3010 --members 30000";
    assert_eq!(check(line).unwrap().procs, 2);
    let refused = check(&format!("{line} --procs 1")).unwrap_err();
    assert!(refused.contains("--procs 2"), "{refused}");
    assert_eq!(check(&format!("{line} --procs 4")).unwrap().procs, 4);
}

#[test]
fn members_that_fit_no_address_are_refused_with_what_would_do() {
    let refused = check_ports(60_000, 1, 1, 0, 28_232).unwrap_err().to_string();
    assert!(refused.contains("127.0.0.2-127.0.0.4"), "{refused}");
    check_ports(60_000, 1, 3, 0, 28_232).unwrap();
    check_ports(60_000, 1, 1, 3, 28_232).unwrap();
    assert!(check_ports(60_000, 1, 3, 1, 28_232).is_err());
    assert!(check_ports(60_000, 2, 3, 0, 28_232).is_err(), "polling takes two sockets");
}

#[test]
fn source_addresses_are_lists_and_ranges() {
    let addresses = |text| parse_sources(text).map(|sources| sources.0.len());
    assert_eq!(addresses("127.0.0.2"), Ok(1));
    assert_eq!(addresses("127.0.0.2-127.0.0.9"), Ok(8));
    assert_eq!(addresses("127.0.0.2-127.0.0.3, 127.0.0.9, ::1"), Ok(4));
    for bad in ["", "127.0.0.9-127.0.0.2", "0.0.0.0-255.255.255.255", "here"] {
        assert!(addresses(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        "run broadcast",
        "run nothing --target http://127.0.0.1:3000",
        "run broadcast --target 127.0.0.1:3000",
        "run broadcast --target http://127.0.0.1",
        "run broadcast --target http://127.0.0.1:3000/path",
        "run broadcast --target http://127.0.0.1:3000 --members 0",
        "run broadcast --target http://127.0.0.1:3000 --rate 0",
        "run broadcast --target http://127.0.0.1:3000 --rate nan",
        "run broadcast --target http://127.0.0.1:3000 --outstanding 0",
        "run broadcast --target http://127.0.0.1:3000 --outstanding 1 --rate 5",
        "run broadcast --target http://127.0.0.1:3000 --publishers 10001",
        "run broadcast --target http://127.0.0.1:3000 --namespace chat",
        "run broadcast --target http://127.0.0.1:3000 --expect lost",
        "run broadcast --target http://127.0.0.1:3000 --dialect redis",
        "run broadcast --target http://127.0.0.1:3000 --duration soon",
        "run baseline --target http://127.0.0.1:3000 --plan 0..1@1s,hold_1s",
    ] {
        assert!(check(line).is_err(), "{line}");
    }
}
