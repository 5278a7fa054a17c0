//! Who may do what, as `[[namespace]]` says: a value made once from the configuration and asked for every decision.
//!
//! Decision order, first word counts:
//! 1. the program's (`Decision::Allow` or `Refuse`): it is not asked here again;
//! 2. the owner's: a room `user:NAME` is that user's, and only a pattern that itself begins with `user:` speaks of it to
//!    others; the room of a socket's id is that socket's, and no pattern can name it;
//! 3. the most specific room rule that says something about the action: more letters count before more `{user}`, these
//!    before fewer `*`;
//! 4. the namespace;
//! 5. the default: in development everything is allowed; otherwise nothing, and namespaces that are not written do not exist.
//!
//! Invariants:
//! - a pattern with `{user}` speaks of every room of its shape and lets in whoever is named there, nobody else, whatever
//!   less specific rules say; a user's name is compared, never read as a pattern;
//! - a refusal does not depend on whether the room exists;
//! - nothing is allocated for a decision.

use std::collections::HashMap;

use mesh::{
    room::RoomKey,
    slot::{Keep, Retention},
};

use crate::config::{Class, Config, History, HistoryRule, Namespace, Relay, RoomRule, Who};

mod pattern;
#[cfg(test)]
mod tests;

use pattern::{Fit, Pattern, Rank};

/// What a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Join a room.
    Join,
    /// Publish to a room.
    Publish,
    /// Read the history of a room.
    History,
    /// List the members of a room, or show oneself among them.
    Presence,
    /// Publish to a whole namespace.
    Broadcast,
}

/// Who wants to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The name of the user; `None` = anonymous.
    pub user: Option<&'a str>,
    /// Is a member of the room.
    pub member: bool,
}

/// Why something is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Nobody is signed in, and that would help.
    Unauthorized,
    /// Only members may.
    NotMember,
    /// It is not allowed.
    Forbidden,
}

/// Which rule decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule<'a> {
    /// The default: development, or a namespace that is not written.
    Default,
    /// The room is a user's own.
    Owner,
    /// The room rule with this pattern.
    Room(&'a str),
    /// The namespace.
    Namespace,
}

/// A decision and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// The decision.
    pub result: Result<(), Denied>,
    /// The rule that made it.
    pub rule: Rule<'a>,
}

/// What the rooms of users are called, in front of the user's name.
pub(crate) const USER_ROOM: &str = "user:";

/// See the module.
#[derive(Debug)]
pub struct Policy {
    /// What is not written is allowed.
    open: bool,
    history: History,
    namespaces: HashMap<String, Rules>,
}

#[derive(Debug)]
struct Rules {
    written: Namespace,
    /// The most specific first.
    rooms: Vec<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    pattern: Pattern,
    rule: RoomRule,
}

impl Policy {
    /// The policy of a checked configuration.
    pub fn new(config: &Config) -> Policy {
        let namespaces = config.namespaces.iter().map(|written| (written.name.clone(), Rules::new(written)));
        Policy { open: config.development, history: config.store.history.clone(), namespaces: namespaces.collect() }
    }

    /// Whether a namespace exists.
    pub fn has(&self, namespace: &str) -> bool {
        self.open || self.namespaces.contains_key(namespace)
    }

    /// Whether the members of its rooms can be listed.
    pub fn presence(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).map_or(self.open, |rules| rules.written.presence)
    }

    /// Whether its messages have an order and a history.
    pub fn class(&self, namespace: &str) -> Class {
        self.namespaces.get(namespace).map_or(Class::Ordered, |rules| rules.written.class)
    }

    /// What happens to an event that nobody handles.
    pub fn relay(&self, namespace: &str) -> Relay {
        self.namespaces.get(namespace).map_or(Relay::Off, |rules| rules.written.relay)
    }

    /// Whether `who` may. `room` means nothing for a broadcast.
    pub fn decide(&self, namespace: &str, room: &str, action: Action, who: Subject<'_>) -> Result<(), Denied> {
        self.explain(namespace, room, action, who).result
    }

    /// As `decide`, with the rule that decided.
    pub fn explain(&self, namespace: &str, room: &str, action: Action, who: Subject<'_>) -> Verdict<'_> {
        let who = Subject { user: who.user.filter(|user| !user.is_empty()), ..who };
        let owner = (action != Action::Broadcast).then(|| room.strip_prefix(USER_ROOM)).flatten();
        let foreign = owner.is_some_and(|owner| who.user != Some(owner));
        let rules = self.namespaces.get(namespace);
        if action != Action::Broadcast
            && let Some(verdict) = rules.and_then(|rules| rules.of_room(room, foreign, action, who))
        {
            return verdict;
        }
        if foreign {
            return Verdict { result: Err(Denied::Forbidden), rule: Rule::Owner };
        }
        match rules {
            Some(rules) => Verdict { result: who.may(rules.of_namespace(action)), rule: Rule::Namespace },
            None if self.open => Verdict { result: Ok(()), rule: Rule::Default },
            None => Verdict { result: Err(Denied::Forbidden), rule: Rule::Default },
        }
    }

    /// What a room keeps.
    pub fn history(&self, namespace: &str, room: &str) -> History {
        let Some(rules) = self.namespaces.get(namespace) else { return self.history.clone() };
        let matching = rules.rooms.iter().filter(|compiled| compiled.pattern.speaks_of(room));
        // Each key by itself: the most specific rule that says it.
        let said = matching.fold(HistoryRule::default(), |said, Compiled { rule, .. }| HistoryRule {
            size: said.size.or(rule.history.size),
            ttl: said.ttl.or(rule.history.ttl),
        });
        said.within(&rules.written.history.within(&self.history))
    }

    /// Whether any room keeps something else than the others.
    pub(crate) fn differs(&self) -> bool {
        let differs = |rule: &HistoryRule| *rule != HistoryRule::default();
        self.namespaces.values().any(|rules| {
            differs(&rules.written.history) || rules.rooms.iter().any(|compiled| differs(&compiled.rule.history))
        })
    }

    /// The oldest age that any room keeps.
    pub(crate) fn longest_ttl(&self) -> std::time::Duration {
        let namespaces = self.namespaces.values();
        let rules = namespaces.flat_map(|rules| {
            rules.rooms.iter().map(|compiled| &compiled.rule.history).chain([&rules.written.history])
        });
        rules.filter_map(|rule| rule.ttl).fold(self.history.ttl, std::cmp::max)
    }
}

impl Retention for Policy {
    fn keep(&self, room: &RoomKey) -> Keep {
        let History { size, ttl } = self.history(room.namespace(), room.room());
        Keep { size: u32::try_from(size).unwrap_or(u32::MAX), ttl }
    }
}

impl Rules {
    fn new(written: &Namespace) -> Rules {
        let compile = |rule: &RoomRule| Compiled { pattern: Pattern::new(&rule.pattern), rule: rule.clone() };
        let mut rooms: Vec<Compiled> = written.rooms.iter().map(compile).collect();
        rooms.sort_by_key(|compiled| std::cmp::Reverse(compiled.pattern.rank()));
        Rules { written: written.clone(), rooms }
    }

    fn of_namespace(&self, action: Action) -> Who {
        match action {
            Action::Join => self.written.allow_join,
            Action::Publish => self.written.allow_publish,
            Action::History => self.written.allow_history,
            Action::Presence => self.written.allow_presence,
            Action::Broadcast => self.written.allow_broadcast,
        }
    }

    /// What the most specific rule about this room says; `None` if there is none.
    fn of_room(&self, room: &str, foreign: bool, action: Action, who: Subject<'_>) -> Option<Verdict<'_>> {
        // A rule of this rank names somebody else in this room; another of the same rank may still name us.
        let mut names_another: Option<(Rank, Verdict<'_>)> = None;
        for Compiled { pattern, rule } in &self.rooms {
            if names_another.is_some_and(|(rank, _)| rank != pattern.rank()) {
                break;
            }
            let Some(allow) = rule.allows(action).filter(|_| !foreign || rule.pattern.starts_with(USER_ROOM)) else {
                continue;
            };
            match pattern.fit(room, who.user) {
                Fit::No => {}
                Fit::Yes => return Some(Verdict { result: who.may(allow), rule: Rule::Room(&rule.pattern) }),
                Fit::NamesAnother => {
                    let anonymous = who.user.is_none() && allow != Who::Nobody;
                    let denied = if anonymous { Denied::Unauthorized } else { Denied::Forbidden };
                    let verdict = Verdict { result: Err(denied), rule: Rule::Room(&rule.pattern) };
                    names_another.get_or_insert((pattern.rank(), verdict));
                }
            }
        }
        names_another.map(|(_, verdict)| verdict)
    }
}

impl RoomRule {
    fn allows(&self, action: Action) -> Option<Who> {
        match action {
            Action::Join => self.allow_join,
            Action::Publish => self.allow_publish,
            Action::History => self.allow_history,
            Action::Presence => self.allow_presence,
            Action::Broadcast => None,
        }
    }
}

impl Subject<'_> {
    fn may(&self, allow: Who) -> Result<(), Denied> {
        match allow {
            Who::Nobody => Err(Denied::Forbidden),
            Who::Anonymous => Ok(()),
            Who::Authenticated if self.user.is_some() => Ok(()),
            Who::Authenticated => Err(Denied::Unauthorized),
            Who::Member if self.member => Ok(()),
            Who::Member => Err(Denied::NotMember),
        }
    }
}
