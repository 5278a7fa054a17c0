//! Rules of `[[namespace]]`: names, patterns, and permissions that could never be used.
//!
//! Invariants: a permission or a number that would have no effect is refused, so that nobody believes in it.

use std::collections::BTreeSet;

use super::{Checker, Code, HISTORY_SIZE_MAX, HISTORY_TTL_MAX, HISTORY_TTL_MIN, quote};
use crate::config::{Class, HistoryRule, Namespace, RoomRule, Who};

/// Appends every rule that a namespace breaks.
pub(super) fn check(checker: &mut Checker<'_>) {
    let config = checker.config;
    if !config.development && !checker.origins.contains_key("namespace") {
        let message = "no [[namespace]] is written, so that no client could connect";
        let hint = "write one in a file, starling config init shows how; without a file, listen on loopback";
        checker.refuse(Code::Conflict, "namespace", message, hint);
    }
    let mut names = BTreeSet::new();
    for (number, namespace) in config.namespaces.iter().enumerate() {
        let at = format!("namespace[{number}]");
        name(checker, &at, namespace, &mut names);
        useless(checker, &at, namespace);
        history(checker, &at, namespace.class, &namespace.history);
        let mut patterns = BTreeSet::new();
        for (number, rule) in namespace.rooms.iter().enumerate() {
            let at = format!("{at}.rooms[{number}]");
            pattern(checker, &at, rule, &mut patterns);
            let allow = [rule.allow_join, rule.allow_history, rule.allow_presence];
            useless_in_rooms(checker, &at, namespace, allow);
            history(checker, &at, namespace.class, &rule.history);
        }
    }
}

fn name<'a>(checker: &mut Checker<'_>, at: &str, namespace: &'a Namespace, names: &mut BTreeSet<&'a str>) {
    let (name, at) = (namespace.name.as_str(), checker.nearest(at, "name"));
    let max = checker.config.limits.name_bytes;
    if !name.starts_with('/') || name.len() > max || name.chars().any(|c| c.is_control() || c == ',' || c == '?') {
        let needs = format!("needs a slash and up to {max} bytes without `,` and `?`, found {}", quote(name));
        checker.refuse(Code::Value, &at, format!("the name of a namespace {needs}"), "for example \"/\" or \"/chat\"");
    } else if !names.insert(name) {
        let message = format!("namespace {} is written twice", quote(name));
        checker.refuse(Code::Conflict, &at, message, "put its rules for rooms into one [[namespace]]");
    }
}

fn pattern<'a>(checker: &mut Checker<'_>, at: &str, rule: &'a RoomRule, patterns: &mut BTreeSet<&'a str>) {
    let (pattern, at) = (rule.pattern.as_str(), checker.nearest(at, "pattern"));
    let max = checker.config.limits.name_bytes;
    if pattern.is_empty() || pattern.len() > max || pattern.chars().any(char::is_control) {
        let message = format!("a pattern of rooms needs 1 to {max} bytes of text, found {}", quote(pattern));
        checker.refuse(Code::Value, &at, message, "for example \"chat:*\"");
    } else if pattern.replace("{user}", "").contains(['{', '}']) {
        let message = format!("a pattern of rooms knows no other placeholder than {{user}}, found {}", quote(pattern));
        checker.refuse(Code::Value, &at, message, "for example \"inbox:{user}\"");
    } else if !patterns.insert(pattern) {
        let message = format!("pattern {} is written twice in one namespace", quote(pattern));
        checker.refuse(Code::Conflict, &at, message, "");
    }
}

/// What a namespace allows and nobody could ever use.
fn useless(checker: &mut Checker<'_>, at: &str, namespace: &Namespace) {
    if namespace.allow_broadcast == Who::Member {
        let message = "\"allow_broadcast\" = \"member\" means nothing: a broadcast has no room to be a member of";
        let hint = "use \"anonymous\" or \"authenticated\"";
        checker.refuse(Code::Conflict, &format!("{at}.allow_broadcast"), message, hint);
    }
    let Namespace { allow_join, allow_history, allow_presence, .. } = *namespace;
    useless_in_rooms(checker, at, namespace, [Some(allow_join), Some(allow_history), Some(allow_presence)]);
}

/// What a namespace, or a rule for some of its rooms, allows and nobody could ever use.
fn useless_in_rooms(checker: &mut Checker<'_>, at: &str, namespace: &Namespace, allow: [Option<Who>; 3]) {
    let [join, history, presence] = allow;
    if join == Some(Who::Member) {
        let message = "\"allow_join\" = \"member\" would let nobody in: joining is how one becomes a member";
        let hint = "use \"anonymous\" or \"authenticated\"";
        checker.refuse(Code::Conflict, &format!("{at}.allow_join"), message, hint);
    }
    let is_allowed = |who: Option<Who>| who.is_some_and(|who| who != Who::Nobody);
    if namespace.class == Class::Ephemeral && is_allowed(history) {
        no_effect(checker, at, "allow_history", EPHEMERAL);
    }
    if !namespace.presence && is_allowed(presence) {
        no_effect(checker, at, "allow_presence", "\"presence\" = false is written");
    }
}

const EPHEMERAL: &str = "\"class\" = \"ephemeral\" keeps no history";

fn no_effect(checker: &mut Checker<'_>, at: &str, key: &str, why: &str) {
    let message = format!("\"{key}\" has no effect: {why}");
    checker.refuse(Code::Conflict, &format!("{at}.{key}"), message, "remove one");
}

fn history(checker: &mut Checker<'_>, at: &str, class: Class, rule: &HistoryRule) {
    if let Some(size) = &rule.size {
        checker.within(&format!("{at}.history.size"), size, &0, &HISTORY_SIZE_MAX);
    }
    if let Some(ttl) = &rule.ttl {
        checker.within(&format!("{at}.history.ttl"), ttl, &HISTORY_TTL_MIN, &HISTORY_TTL_MAX);
    }
    for (key, is_set) in [("history.size", rule.size.is_some()), ("history.ttl", rule.ttl.is_some())] {
        if class == Class::Ephemeral && is_set {
            no_effect(checker, at, key, EPHEMERAL);
        }
    }
}
