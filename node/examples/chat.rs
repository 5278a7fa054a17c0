//! A chat with a node embedded: who comes in says a name, sees what was said before, talks to all, to one, and takes polls.
//!
//! Invariant: `starling`'s command line is here too, so that this program is configured and run like any node.

use std::{process::ExitCode, time::Duration};

use serde_json::json;
use starling::{
    app, cli,
    handler::{Ack, Args, Code, Departure, Event, Handled, Handler, Handshake, Identity, Join, Refused, Socket},
};

struct Chat;

impl Handler for Chat {
    fn admit(&self, client: &Handshake<'_>) -> Result<Identity, Refused> {
        let auth: serde_json::Value = serde_json::from_str(client.auth.unwrap_or("{}")).unwrap_or_default();
        let name = auth["name"].as_str().map(str::to_owned);
        name.map(Identity::user).ok_or_else(|| Refused::new(Code::Unauthorized, "say your name: {auth: {name}}"))
    }

    fn on_connect(&self, socket: &mut Socket<'_>, _auth: Option<&str>) {
        // The last things that were said, as the events they were; then what is said from now on.
        let _ = socket.join(Join::new("lobby").last(20).replayed());
        let came = named(socket, "[]");
        let _ = socket.to("lobby").volatile().publish("came", &came);
    }

    fn on_event(&self, socket: &mut Socket<'_>, event: &Event<'_>, ack: Option<Ack>) -> Handled {
        let said = named(socket, &event.args().json);
        let done = match (event.name(), ack) {
            // To the others in the room, and kept; the ack says where it stands in the history.
            ("say", ack) => socket.to("lobby").publish("said", &said).map(|place| place.answer(ack)),
            // To the one socket whose id is the first argument.
            ("whisper", _) => socket.to(event.first().unwrap_or("")).publish("whispered", &said).map(drop),
            // Asks the others, and answers with what they said within a second.
            ("poll", Some(ack)) => socket.to("lobby").ask("vote", &said, Duration::from_secs(1), |socket, votes| {
                let texts: Vec<&str> = votes.answers.iter().map(|vote| &*vote.json).collect();
                let _ = socket.ack(ack, &Args::text(format!("[[{}],{}]", texts.join(","), votes.silent)));
            }),
            (_, ack) => return Handled::No(ack),
        };
        done.map_or_else(|_| Handled::No(None), |()| Handled::Yes)
    }

    fn on_disconnect(&self, socket: &mut Socket<'_>, _why: Departure) {
        let went = named(socket, "[]");
        let _ = socket.to("lobby").volatile().publish("went", &went);
    }
}

/// What somebody said, with the name in front.
fn named(socket: &Socket<'_>, args: &str) -> Args {
    Args::text(format!("[{},{args}]", json!(socket.user())))
}

fn main() -> ExitCode {
    cli::run(|config| app::serve_with(config, Chat))
}
