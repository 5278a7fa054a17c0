//! The whole program against a server that does wrong on purpose: every fault is found, named and has its exit code.

#![expect(clippy::unwrap_used, reason = "a test helper that cannot go on fails its test")]

mod support;

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use support::{Fault, serve};

/// A short run against `fault` with more arguments; its exit code and report.
fn run(fault: Fault, more: &str) -> (i32, Value) {
    let target = format!("http://{}", serve(fault));
    let output = loadtest(&format!(
        "run broadcast --target {target} --members 6 --arrivals 1000 --rate 40 --duration 500ms --json - {more} \
         --expect slip.p99<10s"
    ));
    report(&output)
}

fn loadtest(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest")).args(line.split_whitespace()).output().unwrap()
}

fn report(output: &Output) -> (i32, Value) {
    let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    assert!(!json.is_null(), "no report: {}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), json)
}

/// The expectations that failed.
fn failed(json: &Value) -> Vec<&str> {
    let checks = json["steps"][0]["checks"].as_array().unwrap();
    checks.iter().filter(|check| check["passed"] == false).map(|check| check["expectation"].as_str().unwrap()).collect()
}

/// A busy machine may make a good run late, never wrong.
fn assert_good(code: i32, json: &Value) {
    assert_eq!(failed(json), [] as [&str; 0], "{json:#}");
    assert!(code == 0 || code == 98, "exit code {code}");
}

#[test]
fn a_good_server_passes_and_everything_is_in_the_report() {
    let (code, json) = run(Fault::None, "--history 7");
    assert_good(code, &json);
    let step = &json["steps"][0];
    assert_eq!((step["sent"].as_u64(), step["delivered"].as_u64()), (Some(20), Some(120)));
    assert_eq!((step["stayed"].as_u64(), step["orders"].as_u64()), (Some(6), Some(1)));
    assert_eq!(step["latency"]["deliver"]["count"], 120);
    assert_eq!(step["latency"]["last"]["count"], 20);
    assert_eq!(step["latency"]["publish"]["count"], 20);
    assert_eq!(step["latency"]["join"]["count"], 6);
    assert_eq!(step["history"], serde_json::json!([7, 7]));
    assert_eq!(json["parameters"]["plan"], "0..6@6ms, hold 500ms");
    assert!(json["machine"]["cores"].as_u64().unwrap() > 0);
}

#[test]
fn a_lost_message_is_found_and_makes_another_order() {
    let (code, json) = run(Fault::Lose, "");
    assert_eq!((code, failed(&json)), (99, vec!["lost==0", "orders==1"]));
    assert_eq!(json["steps"][0]["lost"], 1);
}

#[test]
fn a_duplicated_message_is_found() {
    let (code, json) = run(Fault::Duplicate, "");
    assert_eq!((code, failed(&json)), (99, vec!["duplicated==0"]));
    assert_eq!(json["steps"][0]["duplicated"], 1);
}

#[test]
fn a_reordered_message_is_found_and_makes_another_order() {
    let (code, json) = run(Fault::Swap, "");
    assert_eq!((code, failed(&json)), (99, vec!["reordered==0", "orders==1"]));
    assert_eq!((json["steps"][0]["reordered"].as_u64(), json["steps"][0]["lost"].as_u64()), (Some(1), Some(0)));
}

#[test]
fn a_refused_message_is_owed_to_nobody() {
    let (code, json) = run(Fault::Refuse, "");
    assert_eq!((code, failed(&json)), (99, vec!["refused==0"]));
    assert_eq!(json["steps"][0]["refusals"]["overloaded"], 1);
    assert_eq!((json["steps"][0]["lost"].as_u64(), json["steps"][0]["accepted"].as_u64()), (Some(0), Some(19)));
}

#[test]
fn an_unanswered_message_is_waited_for_and_owed_to_nobody() {
    let (code, json) = run(Fault::Silence, "");
    assert_eq!((code, failed(&json)), (99, vec!["refused==0"]));
    assert_eq!((json["steps"][0]["lost"].as_u64(), json["steps"][0]["unanswered"].as_u64()), (Some(0), Some(1)));
}

#[test]
fn an_offset_that_goes_back_is_found() {
    let (code, json) = run(Fault::OffsetBack, "");
    assert_eq!((code, failed(&json)), (99, vec!["offsets_back==0"]));
}

#[test]
fn a_member_that_is_cut_is_found_and_the_others_are_still_counted() {
    let (code, json) = run(Fault::Cut, "");
    assert_eq!((code, failed(&json)), (99, vec!["disconnects==0"]));
    assert_eq!((json["steps"][0]["stayed"].as_u64(), json["steps"][0]["lost"].as_u64()), (Some(5), Some(0)));
}

#[test]
fn several_workers_and_publishers_see_one_order() {
    let (code, json) = run(Fault::None, "--procs 3 --publishers 4 --source-ips 127.0.0.2-127.0.0.3");
    assert_good(code, &json);
    let step = &json["steps"][0];
    assert_eq!((step["delivered"].as_u64(), step["orders"].as_u64()), (Some(120), Some(1)));
    assert_eq!(step["generator"]["cores"].as_array().unwrap().len(), 3);
}

#[test]
fn faults_are_found_across_workers_too() {
    let (code, json) = run(Fault::Lose, "--procs 3");
    assert_eq!((code, json["steps"][0]["lost"].as_u64()), (99, Some(1)));
}

#[test]
fn application_events_work_like_room_events_but_promise_no_order() {
    let (code, json) = run(Fault::Swap, "--dialect emit:join,publish");
    assert_good(code, &json);
    assert_eq!(json["steps"][0]["reordered"], 1);
}

#[test]
fn a_closed_loop_keeps_its_number_outstanding() {
    let target = format!("http://{}", serve(Fault::None));
    let (code, json) = report(&loadtest(&format!(
        "run broadcast --target {target} --members 5 --outstanding 2 --duration 300ms --json -"
    )));
    assert_good(code, &json);
    let step = &json["steps"][0];
    let sent = step["sent"].as_u64().unwrap();
    assert!(sent > 2, "only {sent} messages: nothing was released");
    assert_eq!(step["delivered"].as_u64(), Some(sent * 5));
    assert_eq!(step["stalls"], 0);
}

#[test]
fn members_may_go_again_and_those_who_stay_get_everything() {
    let target = format!("http://{}", serve(Fault::None));
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["run", "broadcast", "--target", &target, "--rate", "40", "--json", "-"])
        .args(["--plan", "0..6@10ms, hold 300ms, 6..2@10ms, hold 300ms, 2..4@10ms, hold 300ms"])
        .output()
        .unwrap();
    let (_, json) = report(&output);
    let stayed: Vec<_> =
        json["steps"].as_array().unwrap().iter().map(|step| step["stayed"].as_u64().unwrap()).collect();
    assert_eq!(stayed, [6, 2, 4]);
    for step in json["steps"].as_array().unwrap() {
        assert_eq!((step["lost"].as_u64(), step["duplicated"].as_u64()), (Some(0), Some(0)), "{step:#}");
    }
}

#[test]
fn a_message_of_an_earlier_phase_is_foreign_in_the_next() {
    let target = format!("http://{}", serve(Fault::Replay));
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["run", "broadcast", "--target", &target, "--rate", "40", "--json", "-"])
        .args(["--plan", "0..2@10ms, hold 300ms, hold 300ms"])
        .output()
        .unwrap();
    let (_, json) = report(&output);
    let figures = |name: &str| [0, 1].map(|step| json["steps"][step][name].as_u64().unwrap());
    assert_eq!((figures("duplicated"), figures("foreign"), figures("lost")), ([1, 0], [0, 1], [0, 0]));
}

#[test]
fn a_server_that_refuses_everybody_is_exit_code_three() {
    let target = format!("http://{}", serve(Fault::RefuseConnect));
    let output = loadtest(&format!("run broadcast --target {target} --members 2 --duration 1s"));
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("nobody could connect") && said.contains("503"), "{said}");
}

#[test]
fn a_command_line_that_makes_no_sense_is_exit_code_two() {
    for line in [
        "run broadcast --target http://192.0.2.1:3000",
        "run broadcast --target http://127.0.0.1:1 --server-pid 999999999",
        "run broadcast --target http://127.0.0.1:1 --expect never==0",
        "run",
    ] {
        assert_eq!(loadtest(line).status.code(), Some(2), "{line}");
    }
}

/// Starts a run of `plan`, interrupts it after two seconds (time for what it is meant to interrupt), and waits for it.
fn interrupted(plan: &str) -> (i32, Value) {
    let target = format!("http://{}", serve(Fault::None));
    let child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["run", "broadcast", "--target", &target, "--plan", plan, "--json", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    report(&child.wait_with_output().unwrap())
}

#[test]
fn an_interrupt_ends_a_measurement_early_and_still_writes_the_report() {
    let (code, json) = interrupted("0..3@1ms, hold 60s");
    assert_eq!((code, json["verdict"].as_str()), (130, Some("interrupted")));
    assert_eq!((json["steps"][0]["stayed"].as_u64(), json["steps"][0]["lost"].as_u64()), (Some(3), Some(0)));
}

#[test]
fn an_interrupt_while_members_arrive_ends_with_an_empty_report() {
    let (code, json) = interrupted("0..60@60s, hold 60s");
    assert_eq!((code, json["steps"].as_array().map(Vec::len)), (130, Some(0)));
}
