//! `starling status`: how the cluster is, in a few lines and an exit code, so that it doubles as a check.
//!
//! Invariants: healthy means that the asked node is ready, that every member and link it knows is well, and that a cluster
//! which could lose a node is safe to; a reason is given for everything else.

use std::fmt::Write;

use super::ask::{self, AskError};
use super::http;
use super::{Exit, StatusArgs, say};
use crate::api::{ClusterReport, LinkState, MemberReport, MemberState, OpenReport};

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
        Err(error) => ask::complain(&arguments.admin, &error),
    }
}

fn ask(admin: &str) -> Result<(bool, ClusterReport), AskError> {
    let ready = http::get(admin, "/readyz")?.status == 200;
    Ok((ready, ask::json(admin, "/api/cluster")?))
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
    // One or two nodes are never safe to lose, and are as healthy as they can be.
    if let (true, Some(why)) = (complaints.is_empty() && report.could_lose_one(), &report.unsafe_because) {
        complaints.push(format!("not safe to lose a node: {why}"));
    }
    complaints
}

fn verdict(complaints: &[String]) -> String {
    if complaints.is_empty() { "HEALTHY".to_owned() } else { format!("DEGRADED: {}", complaints.join("; ")) }
}

fn table(report: &ClusterReport, complaints: &[String]) -> String {
    let mut out = String::new();
    let widest = |cell: fn(&MemberReport) -> usize| report.members.iter().map(cell).max().unwrap_or(0);
    let (name, place) = (widest(|m| m.node.len()).max(4), widest(|m| address(m).len()).max(7));
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "{:name$}  STATE     VERSION  {:place$}     GENERATION  CONNECTIONS  SLOTS  OWNED  REPLICA  SYNCING  WITNESS  LINK",
        "NODE", "ADDRESS"
    );
    for member in &report.members {
        let link = report.links.iter().find(|link| link.node == member.node);
        let link = link.map_or_else(|| "-".to_owned(), |link| format!("{} {} us", link.state.as_str(), link.rtt_us));
        let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        let open = |part: fn(&OpenReport) -> u32| number(member.open.as_ref().map(part).map(u64::from));
        let _ = writeln!(
            out,
            "{:name$}  {:<8}  {:<7}  {:place$}  {:>13}  {:>11}  {:>5}  {:>5}  {:>7}  {:>7}  {:>7}  {link}",
            member.node,
            member.state.as_str(),
            member.version.as_deref().unwrap_or("?"),
            address(member),
            member.generation,
            number(member.connections),
            member.slots,
            open(|open| open.owned),
            open(|open| open.replica),
            open(|open| open.syncing),
            open(|open| open.witness),
        );
    }
    let safe = match &report.unsafe_because {
        None if report.safe_to_lose_one => "yes".to_owned(),
        None => "no".to_owned(),
        Some(why) => format!("no: {why}"),
    };
    let _ = writeln!(out, "safe to lose a node: {safe}");
    let _ = writeln!(out, "{}", verdict(complaints));
    out
}

fn address(member: &MemberReport) -> &str {
    member.address.as_deref().unwrap_or("-")
}

fn json(report: &ClusterReport, complaints: &[String]) -> serde_json::Value {
    serde_json::json!({ "healthy": complaints.is_empty(), "complaints": complaints, "cluster": report })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::LinkReport;

    fn member(node: &str, ordinal: u16, state: MemberState) -> MemberReport {
        MemberReport {
            node: node.to_owned(),
            ordinal,
            generation: 1,
            state,
            connections: Some(7),
            slots: 1365,
            address: Some(format!("10.0.0.{ordinal}:3002")),
            version: Some("0.1.0".to_owned()),
            open: Some(OpenReport { owned: 3, replica: 2, syncing: 1, witness: 4, single_copy: 0 }),
        }
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
    fn a_cluster_that_could_lose_a_node_is_healthy_only_while_it_may() {
        let mut report = two();
        report.members.push(member("node-2", 2, MemberState::Alive));
        report.copies = 2;
        report.members[0].open = Some(OpenReport::default());
        assert_eq!(
            complaints(true, &report.clone().judge()),
            ["not safe to lose a node: replicas of 2 slots are still being filled"]
        );
        report.members.iter_mut().for_each(|member| member.open = Some(OpenReport::default()));
        let safe = report.clone().judge();
        assert_eq!(complaints(true, &safe), Vec::<String>::new());
        assert!(table(&safe, &[]).contains("safe to lose a node: yes\n"));
        report.members.truncate(2);
        let two = report.judge();
        assert_eq!(complaints(true, &two), Vec::<String>::new());
        assert!(table(&two, &[]).contains("safe to lose a node: no: it takes three nodes, and 2 answer\n"));
    }

    #[test]
    fn everything_that_is_wrong_is_said() {
        let mut report = two();
        report.members[1].state = MemberState::Suspect;
        report.members[1].connections = None;
        report.members[1].open = None;
        report.links[0].state = LinkState::Down;
        report.silent = vec!["node-1".to_owned()];
        let complaints = complaints(false, &report);
        let expected =
            ["the asked node is not ready", "node-1 is suspect", "the link to node-1 is down", "node-1 did not answer"];
        assert_eq!(complaints, expected);
        let table = table(&report, &complaints);
        let row = "node-1  suspect   0.1.0    10.0.0.1:3002              1            ?   1365      ?        ?        ?        ?  down 210 us";
        assert!(table.contains(row), "{table}");
        assert!(table.contains("7   1365      3        2        1        4  -\n"), "{table}");
        assert!(table.contains("DEGRADED: the asked node is not ready; node-1 is suspect"), "{table}");
    }

    #[test]
    fn a_node_that_nobody_runs_is_unreachable_and_a_bad_address_is_a_usage_error() {
        let status = |admin: &str| run(&StatusArgs { admin: admin.to_owned(), json: false });
        assert_eq!(status("http://127.0.0.1:1"), Exit::Unreachable);
        assert_eq!(status("nonsense"), Exit::Usage);
    }
}
