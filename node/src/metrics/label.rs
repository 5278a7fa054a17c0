//! The words that labels may hold.
//!
//! Invariants: every set is closed; a word never changes once it was released, since dashboards ask for it.

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// Name of the label.
    const NAME: &'static str;
    /// Every value, in the order of `index`.
    const ALL: &'static [Self];
    /// Position in `ALL`.
    fn index(self) -> usize;
    /// The value as written.
    fn as_str(self) -> &'static str;
}

macro_rules! label {
    ($(#[$meta:meta])* $name:ident as $label:literal { $($variant:ident = $word:literal, $doc:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $(#[doc = $doc] $variant),+ }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$($name::$variant),+];
            fn index(self) -> usize {
                self as usize
            }
            fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }
    };
}

label! {
    /// Transport of a connection.
    Transport as "transport" {
        Polling = "polling", "HTTP long-polling.";
        WebSocket = "websocket", "WebSocket.";
    }
}

label! {
    /// Why a connection ended (protocol.md 6).
    CloseReason as "reason" {
        TransportClose = "transport_close", "The client went away.";
        TransportError = "transport_error", "The transport broke or misbehaved.";
        PingTimeout = "ping_timeout", "No pong in time.";
        ParseError = "parse_error", "Something that is not the protocol.";
        ClientClose = "client_close", "The client said so.";
        ServerClose = "server_close", "This node said so.";
        ConnectTimeout = "connect_timeout", "No namespace was joined in time.";
        SlowConsumer = "slow_consumer", "Too much waited for it.";
        Draining = "draining", "This node stops.";
        RateLimited = "rate_limited", "Far more than a limit allows.";
        Overloaded = "overloaded", "Given up because memory is short.";
    }
}

label! {
    /// Why a request was refused before it became a session (protocol.md 5).
    HandshakeError as "code" {
        TransportUnknown = "0", "Transport unknown.";
        SessionUnknown = "1", "Session ID unknown.";
        BadMethod = "2", "Bad handshake method.";
        BadRequest = "3", "Bad request.";
        Forbidden = "4", "Forbidden.";
        Version = "5", "Unsupported protocol version.";
    }
}

label! {
    /// How an upgrade ended.
    UpgradeResult as "result" {
        Upgraded = "upgraded", "The session moved to the WebSocket.";
        Refused = "refused", "The WebSocket was closed at once.";
        TimedOut = "timed_out", "The probe took too long.";
        Abandoned = "abandoned", "The candidate closed or misbehaved.";
    }
}

label! {
    /// What a client wanted of a session on another node.
    ForwardKind as "kind" {
        Poll = "poll", "A polling GET.";
        Post = "post", "A polling POST.";
        Upgrade = "upgrade", "A WebSocket.";
    }
}

label! {
    /// What became of a request that was carried to another node.
    ForwardResult as "result" {
        Answered = "answered", "That node answered, whatever it said.";
        Gone = "gone", "That node, or that life of it, is not there: Session ID unknown.";
        Busy = "busy", "Too much is carried there already: 503.";
        Late = "late", "No answer in time: Session ID unknown.";
        Lost = "lost", "The link broke, or that node does not know it: Session ID unknown.";
        Abandoned = "abandoned", "The client left, or its own body was refused.";
    }
}

label! {
    /// Type of a Socket.IO packet (protocol.md 7).
    PacketType as "type" {
        Connect = "connect", "CONNECT.";
        Disconnect = "disconnect", "DISCONNECT.";
        Event = "event", "EVENT and BINARY_EVENT.";
        Ack = "ack", "ACK and BINARY_ACK.";
        Invalid = "invalid", "Anything that closed its connection.";
    }
}

label! {
    /// Where a published event came from.
    Source as "source" {
        Client = "client", "A socket of this node.";
        Mesh = "mesh", "Another node, because this one owns the room.";
    }
}

label! {
    /// Why something was refused.
    RejectReason as "reason" {
        Connections = "connections", "`limits.connections` is reached.";
        Memory = "memory", "Memory is short.";
        Descriptors = "descriptors", "Descriptors are short.";
        ConnectBytes = "connect_bytes", "More than `limits.connect_bytes` before a namespace was joined.";
        Assembly = "assembly", "The rest of a message did not come in time.";
        Fragments = "fragments", "A message in more pieces than `limits.fragments`.";
        Body = "body", "The body of a request did not come in time.";
        PerIp = "per_ip", "`limits.per_ip` is reached by an address.";
        PerIpRate = "per_ip_rate", "An address connects faster than `limits.per_ip_rate`.";
        FailedAuth = "failed_auth", "An address whose clients were not admitted more than `limits.failed_auth_per_minute` times.";
        Tls = "tls", "No TLS handshake, or none in time, on a port that speaks TLS.";
        Headers = "headers", "HTTP headers too large or malformed.";
        Payload = "payload", "Larger than `socketio.max_payload`.";
        Origin = "origin", "The origin may not connect.";
        Namespaces = "namespaces", "`limits.namespaces` is reached.";
        Rooms = "rooms", "`limits.rooms_per_socket` is reached.";
        BadRequest = "bad_request", "A built-in event with a wrong argument.";
        Unauthorized = "unauthorized", "Nobody is signed in, and would have to be.";
        Forbidden = "forbidden", "It is not allowed.";
        NotMember = "not_member", "Only members may do this.";
        RateLimited = "rate_limited", "Too much at once.";
        Overloaded = "overloaded", "A queue is full.";
        StorageFull = "storage_full", "The store takes no more.";
        NoQuorum = "no_quorum", "This side of a cut may not write.";
        Timeout = "timeout", "No answer from the owner in time.";
        Backend = "backend_error", "The backend did not answer as it should.";
        Program = "program", "The embedding program, for reasons of its own.";
        Unhandled = "unhandled_event", "An event that nobody handles.";
        Draining = "draining", "This node stops.";
    }
}

label! {
    /// What became of a changed certificate or cluster key.
    ReloadResult as "result" {
        Replaced = "replaced", "New handshakes use it.";
        Refused = "refused", "It cannot serve; the old one goes on.";
    }
}

label! {
    /// Why an event was given up.
    DropReason as "reason" {
        Volatile = "volatile", "A volatile event met a busy connection.";
        Unreached = "unreached", "A volatile event for a node to which there is no link, or no room to spare in its lane.";
        SlowConsumer = "slow_consumer", "Its connection was closed for lagging.";
        Mailbox = "mailbox", "The mailbox of a thread is full.";
        Mesh = "mesh", "The lane to a node is full or gone.";
        Store = "store", "The store's queue is full.";
        Duplicate = "duplicate", "Seen before.";
    }
}

label! {
    /// A queue between threads.
    Queue as "queue" {
        Shard = "shard", "To shards.";
        Mesh = "mesh", "To the mesh thread.";
        Store = "store", "To the store thread.";
    }
}

label! {
    /// State of a member of the cluster.
    MemberState as "state" {
        Alive = "alive", "Answers.";
        Suspect = "suspect", "Does not answer, not yet given up.";
        Draining = "draining", "Announced its leave.";
        Down = "down", "Given up.";
    }
}

label! {
    /// What this node is in a slot.
    SlotRole as "role" {
        Owner = "owner", "It orders the slot.";
        Replica = "replica", "It holds everything that anybody has seen.";
        Syncing = "syncing", "It is a replica that is still being told what it lacks.";
        Witness = "witness", "It votes.";
    }
}

label! {
    /// State of a link to another node.
    LinkState as "state" {
        Up = "up", "Carries frames.";
        Connecting = "connecting", "Being dialled.";
        Down = "down", "Lost.";
    }
}

label! {
    /// Why something was refused on the mesh port, in the order of `mesh::RefusalReason::ALL`.
    MeshRefusal as "reason" {
        Key = "key", "No cluster key, another one, or no TLS of ours.";
        Timeout = "timeout", "A handshake or greeting that was not finished in time.";
        Crowded = "crowded", "Too many handshakes at once.";
        Version = "version", "Another protocol, number of slots or of lanes.";
        Identity = "identity", "A certificate of another node.";
        Twin = "twin", "A node that was started twice.";
        Malformed = "malformed", "Bytes that are no frame where one was due.";
        Gossip = "gossip", "A gossip packet or roster that cannot be read.";
        Question = "question", "A question that cannot be read or is too large.";
    }
}

const _: () = assert!(MeshRefusal::ALL.len() == mesh::RefusalReason::ALL.len(), "one word per reason");

label! {
    /// A lane of a link: that of a slot is `slot % 4`.
    Lane as "lane" {
        L0 = "0", "Slots 0, 4, 8, …";
        L1 = "1", "Slots 1, 5, 9, …";
        L2 = "2", "Slots 2, 6, 10, …";
        L3 = "3", "Slots 3, 7, 11, …";
    }
}

const _: () = assert!(Lane::ALL.len() == mesh::LANES as usize, "one word per lane");

label! {
    /// Why a room's frame came from another node.
    Purpose as "purpose" {
        Publish = "publish", "This node orders the room.";
        Keep = "keep", "It holds the second copy.";
        Show = "show", "It has members.";
    }
}

label! {
    /// Direction of a frame.
    Direction as "direction" {
        In = "received", "From another node.";
        Out = "sent", "To another node.";
    }
}
