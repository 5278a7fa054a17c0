//! `starling status`: how the cluster is, in a few lines and an exit code, so that it doubles as a check.
//!
//! Invariants: healthy means that the asked node is ready and that every member and link it knows is well; a reason is
//! given for everything else.

use std::fmt::Write;

use super::http::{self, HttpError};
use super::{Exit, StatusArgs, complain, say};
use crate::api::{ClusterReport, LinkState, MemberState};

pub(super) fn run(arguments: &StatusArgs) -> Exit {
    match ask(&arguments.admin) {
        Ok((ready, report)) => {
            let complaints = complaints(ready, &report);
            if arguments.json {
                say(json(&report, &complaints));
            } else {
                say(table(&report, &complaints).trim_end());
            }
            if complaints.is_empty() { Exit::Ok } else { Exit::Unhealthy }
        }
        Err(error) => {
            complain(format_args!("error: {}: {error}", arguments.admin));
            match error {
                AskError::Http(HttpError::Address(_)) => Exit::Usage,
                AskError::Http(HttpError::Io(_) | HttpError::Malformed) => Exit::Unreachable,
                AskError::Refused { .. } | AskError::Unreadable(_) => Exit::Failed,
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("answered {status}: {body}")]
    Refused { status: u16, body: String },
    #[error("answered something else than the state of a cluster: {0}")]
    Unreadable(#[from] serde_json::Error),
}

fn ask(admin: &str) -> Result<(bool, ClusterReport), AskError> {
    let ready = http::get(admin, "/readyz")?.status == 200;
    let answer = http::get(admin, "/api/cluster")?;
    if answer.status != 200 {
        let body = String::from_utf8_lossy(&answer.body).chars().filter(|c| !c.is_control()).take(300).collect();
        return Err(AskError::Refused { status: answer.status, body });
    }
    Ok((ready, serde_json::from_slice(&answer.body)?))
}

/// What is not as it should be, one sentence each.
fn complaints(ready: bool, report: &ClusterReport) -> Vec<String> {
    let mut complaints = Vec::new();
    if !ready {
        complaints.push("the asked node is not ready".to_owned());
    }
    for member in report.members.iter().filter(|member| member.state != MemberState::Alive) {
        complaints.push(format!("{} is {}", member.node, member.state.as_str()));
    }
    for link in report.links.iter().filter(|link| link.state != LinkState::Up) {
        complaints.push(format!("the link to {} is {}", link.node, link.state.as_str()));
    }
    complaints.extend(report.silent.iter().map(|node| format!("{node} did not answer")));
    complaints
}

fn verdict(complaints: &[String]) -> String {
    if complaints.is_empty() { "HEALTHY".to_owned() } else { format!("DEGRADED: {}", complaints.join("; ")) }
}

fn table(report: &ClusterReport, complaints: &[String]) -> String {
    let mut out = String::new();
    let width = report.members.iter().map(|member| member.node.len()).max().unwrap_or(0).max(4);
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{:width$}  STATE     CONNECTIONS  SLOTS  LINK", "NODE");
    for member in &report.members {
        let connections = member.connections.map_or_else(|| "?".to_owned(), |count| count.to_string());
        let link = report.links.iter().find(|link| link.node == member.node);
        let link = link.map_or_else(|| "-".to_owned(), |link| format!("{} {} us", link.state.as_str(), link.rtt_us));
        let (node, state, slots) = (&member.node, member.state.as_str(), member.slots);
        let _ = writeln!(out, "{node:width$}  {state:<8}  {connections:>11}  {slots:>5}  {link}");
    }
    let safe = if report.safe_to_lose_one { "yes" } else { "no" };
    let _ = writeln!(out, "safe to lose a node: {safe} ({} slots with a single copy)", report.single_copy_slots);
    let _ = writeln!(out, "{}", verdict(complaints));
    out
}

fn json(report: &ClusterReport, complaints: &[String]) -> serde_json::Value {
    serde_json::json!({ "healthy": complaints.is_empty(), "complaints": complaints, "cluster": report })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{LinkReport, MemberReport};

    fn member(node: &str, ordinal: u16, state: MemberState) -> MemberReport {
        MemberReport { node: node.to_owned(), ordinal, generation: 1, state, connections: Some(7), slots: 1365 }
    }

    fn two() -> ClusterReport {
        ClusterReport {
            members: vec![member("node-0", 0, MemberState::Alive), member("node-1", 1, MemberState::Alive)],
            links: vec![LinkReport { node: "node-1".to_owned(), rtt_us: 210, state: LinkState::Up }],
            view: 3,
            ..ClusterReport::default()
        }
    }

    #[test]
    fn a_ready_node_with_well_members_and_links_is_healthy() {
        assert_eq!(complaints(true, &two()), Vec::<String>::new());
        assert!(table(&two(), &[]).ends_with("HEALTHY\n"));
    }

    #[test]
    fn everything_that_is_wrong_is_said() {
        let mut report = two();
        report.members[1].state = MemberState::Suspect;
        report.members[1].connections = None;
        report.links[0].state = LinkState::Down;
        report.silent = vec!["node-1".to_owned()];
        let complaints = complaints(false, &report);
        let expected =
            ["the asked node is not ready", "node-1 is suspect", "the link to node-1 is down", "node-1 did not answer"];
        assert_eq!(complaints, expected);
        let table = table(&report, &complaints);
        assert!(table.contains("node-1  suspect             ?   1365  down 210 us"), "{table}");
        assert!(table.contains("DEGRADED: the asked node is not ready; node-1 is suspect"), "{table}");
    }

    #[test]
    fn a_node_that_nobody_runs_is_unreachable_and_a_bad_address_is_a_usage_error() {
        let status = |admin: &str| run(&StatusArgs { admin: admin.to_owned(), json: false });
        assert_eq!(status("http://127.0.0.1:1"), Exit::Unreachable);
        assert_eq!(status("nonsense"), Exit::Usage);
    }
}
