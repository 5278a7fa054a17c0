//! What rules decide, as a table, and what no set of rules may ever decide.

use proptest::prelude::*;

use super::*;
use crate::config::{Facts, File, Sources, load};

fn policy(text: &str) -> Policy {
    let text = format!("auth.anonymous = true\n{text}");
    let file = Some(File { name: "test".to_owned(), text: Ok(text) });
    let facts = Facts { host_name: "test".to_owned(), cores: 1 };
    let loaded = load(&Sources { file, environment: Vec::new(), flags: Vec::new(), facts });
    Policy::new(&loaded.unwrap_or_else(|problems| panic!("{problems:?}")).config)
}

const RULES: &str = r#"
[[namespace]]
name = "/"
allow_join = "anonymous"
allow_publish = "member"
allow_history = "authenticated"
history = { size = 50 }
rooms = [
  { pattern = "news", allow_publish = "nobody" },
  { pattern = "staff:*", allow_join = "nobody" },
  { pattern = "staff:lobby", allow_join = "authenticated", history = { ttl = "1h" } },
  { pattern = "inbox:{user}", allow_join = "authenticated", allow_publish = "anonymous", history = { size = 5 } },
  { pattern = "dm:{user}:*", allow_join = "authenticated" },
  { pattern = "dm:*:{user}", allow_join = "authenticated" },
  { pattern = "user:*", allow_publish = "authenticated" },
  { pattern = "*", allow_history = "member" },
]

[[namespace]]
name = "/closed"
presence = false
class = "ephemeral"
relay = "sender_rooms"
"#;

fn who(text: &str) -> Subject<'_> {
    let (user, member) = text.strip_suffix('+').map_or((text, false), |user| (user, true));
    Subject { user: Some(user).filter(|user| *user != "-"), member }
}

#[test]
fn the_most_specific_rule_that_says_something_decides() {
    use Action::{Broadcast, History, Join, Presence, Publish};
    use Denied::{Forbidden, NotMember, Unauthorized};
    let room = Rule::Room;
    // Who ("-" = anonymous, "+" = member), what, room, decision, rule.
    let table: [(_, _, _, _, Rule<'_>); 30] = [
        ("-", Join, "lobby", Ok(()), Rule::Namespace),
        ("-", Publish, "lobby", Err(NotMember), Rule::Namespace),
        ("-+", Publish, "lobby", Ok(()), Rule::Namespace),
        ("ada", Publish, "lobby", Err(NotMember), Rule::Namespace),
        ("ada+", Publish, "news", Err(Forbidden), room("news")),
        ("ada", Join, "news", Ok(()), Rule::Namespace),
        ("ada", History, "news", Err(NotMember), room("*")),
        ("-+", History, "news", Ok(()), room("*")),
        ("ada", Presence, "news", Err(Forbidden), Rule::Namespace),
        ("ada", Join, "staff:1", Err(Forbidden), room("staff:*")),
        ("ada", Join, "staff:lobby", Ok(()), room("staff:lobby")),
        ("-", Join, "staff:lobby", Err(Unauthorized), room("staff:lobby")),
        ("-+", Publish, "staff:1", Ok(()), Rule::Namespace),
        ("ada", Join, "inbox:ada", Ok(()), room("inbox:{user}")),
        ("bob", Join, "inbox:ada", Err(Forbidden), room("inbox:{user}")),
        ("-", Join, "inbox:ada", Err(Unauthorized), room("inbox:{user}")),
        ("bob", Publish, "inbox:ada", Err(Forbidden), room("inbox:{user}")),
        ("*", Join, "inbox:ada", Err(Forbidden), room("inbox:{user}")),
        ("ada", Join, "dm:ada:bob", Ok(()), room("dm:{user}:*")),
        ("bob", Join, "dm:ada:bob", Ok(()), room("dm:*:{user}")),
        ("eve", Join, "dm:ada:bob", Err(Forbidden), room("dm:{user}:*")),
        ("bob", Join, "user:ada", Err(Forbidden), Rule::Owner),
        ("-", Join, "user:ada", Err(Forbidden), Rule::Owner),
        ("ada", Join, "user:ada", Ok(()), Rule::Namespace),
        ("bob", Publish, "user:ada", Ok(()), room("user:*")),
        ("bob+", History, "user:ada", Err(Forbidden), Rule::Owner),
        ("ada+", History, "user:ada", Ok(()), room("*")),
        ("ada+", Broadcast, "", Err(Forbidden), Rule::Namespace),
        ("", Join, "staff:lobby", Err(Unauthorized), room("staff:lobby")),
        ("", Join, "user:", Err(Forbidden), Rule::Owner),
    ];
    let policy = policy(RULES);
    for (subject, action, room, result, rule) in table {
        assert_eq!(
            policy.explain("/", room, action, who(subject)),
            Verdict { result, rule },
            "{subject} {action:?} {room}"
        );
    }
}

#[test]
fn what_is_not_written_is_allowed_in_development_only() {
    let facts = Facts { host_name: "test".to_owned(), cores: 1 };
    let loaded = load(&Sources { file: None, environment: Vec::new(), flags: Vec::new(), facts }).unwrap();
    let open = Policy::new(&loaded.config);
    assert!(open.has("/") && open.has("/anything") && open.presence("/anything"));
    for action in [Action::Join, Action::Publish, Action::History, Action::Presence, Action::Broadcast] {
        assert_eq!(open.decide("/anything", "room", action, who("-")), Ok(()), "{action:?}");
        assert_eq!(
            policy(RULES).decide("/anything", "room", action, who("ada+")),
            Err(Denied::Forbidden),
            "{action:?}"
        );
        assert_eq!(policy(RULES).decide("/closed", "room", action, who("ada+")), Err(Denied::Forbidden), "{action:?}");
    }
    assert_eq!(open.decide("/", "user:ada", Action::Publish, who("bob")), Err(Denied::Forbidden));
    let closed = policy(RULES);
    assert!(closed.has("/") && !closed.has("/anything") && !closed.presence("/closed"));
    assert_eq!((closed.class("/closed"), closed.relay("/closed")), (Class::Ephemeral, Relay::SenderRooms));
    assert_eq!((closed.class("/"), closed.relay("/")), (Class::Ordered, Relay::Off));
}

#[test]
fn a_room_keeps_what_the_most_specific_rule_says_key_by_key() {
    let policy = policy(RULES);
    let kept = |room: &str| {
        let History { size, ttl } = policy.history("/", room);
        (size, ttl.as_secs())
    };
    assert_eq!(kept("lobby"), (50, 600));
    assert_eq!(kept("staff:lobby"), (50, 3_600));
    assert_eq!(kept("inbox:anybody"), (5, 600));
    assert_eq!(policy.history("/closed", "x").size, 1_000);
    assert_eq!(policy.longest_ttl().as_secs(), 3_600);
    assert!(policy.differs());
}

fn pattern() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof![Just("a"), Just("b:"), Just("*"), Just("{user}")], 1..4)
        .prop_map(|pieces| pieces.concat())
}

fn allow() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("nobody"), Just("anonymous"), Just("authenticated"), Just("member")]
}

proptest! {
    #[test]
    fn whatever_the_rules_say(
        rules in proptest::collection::btree_map(pattern(), allow(), 1..6),
        general in allow(), room in "[ab:*]{1,6}", user in "[ab:*]{1,3}", member in any::<bool>(),
    ) {
        let rooms: Vec<String> =
            rules.iter().map(|(pattern, allow)| format!("{{ pattern = \"{pattern}\", allow_publish = \"{allow}\" }}")).collect();
        let text = format!("[[namespace]]\nname = \"/\"\nallow_publish = \"{general}\"\nrooms = [{}]", rooms.join(","));
        let policy = policy(&text);
        let decide = |room: &str, who: Subject<'_>| policy.decide("/", room, Action::Publish, who);
        let named = Subject { user: Some(&user), member };
        let nobody = Subject { user: None, member };
        // Signing in never takes anything away, and being a member neither.
        if decide(&room, nobody).is_ok() {
            prop_assert_eq!(decide(&room, named), Ok(()));
        }
        if decide(&room, Subject { member: false, ..named }).is_ok() {
            prop_assert_eq!(decide(&room, Subject { member: true, ..named }), Ok(()));
        }
        // `not_member` is said to those only whom membership would help, `unauthorized` only to the anonymous.
        match decide(&room, named) {
            Err(Denied::NotMember) => {
                prop_assert!(!member);
                prop_assert_eq!(decide(&room, Subject { member: true, ..named }), Ok(()));
            }
            denied => prop_assert_ne!(denied, Err(Denied::Unauthorized)),
        }
        // None of these patterns begins with `user:`: a user's room is the user's.
        let own = format!("user:{user}");
        prop_assert_eq!(decide(&own, Subject { user: Some("somebody else"), member }), Err(Denied::Forbidden));
        prop_assert_eq!(decide(&own, nobody), Err(Denied::Forbidden));
    }
}
