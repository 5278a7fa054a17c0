//! The clients of a round: publishers and subscribers on every node, and a few of the official client.
//!
//! Invariants: every room has a member on every node and is published to from every node that may; whoever loses its node
//! goes to the next.

use std::rc::Rc;
use std::time::Duration;

use clap::Args;

use crate::official::{self, Official};
use crate::publisher::{self, Publisher};
use crate::stage::Stage;
use crate::subscriber::{self, Subscriber};

/// How many clients, rooms and messages.
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
    /// Rooms.
    #[arg(long, default_value_t = 30)]
    pub(crate) rooms: usize,
    /// Messages a second, over all publishers.
    #[arg(long, default_value_t = 300)]
    rate: u64,
    /// Publishers on each node.
    #[arg(long, default_value_t = 2)]
    publishers: usize,
    /// Rooms that one subscriber is in.
    #[arg(long, default_value_t = 5)]
    rooms_per_subscriber: usize,
    /// Processes of the official JavaScript client, each in three rooms (needs STARLING_E2E: the folder with node_modules).
    #[arg(long, default_value_t = 2)]
    official: usize,
}

/// Rooms that an official client is in.
const OFFICIAL_ROOMS: usize = 3;

impl Load {
    /// Names of the rooms.
    pub(crate) fn names(&self) -> Vec<String> {
        (0..self.rooms).map(|number| format!("room-{number}")).collect()
    }

    /// Starts everybody; `publishes(node, room)` says where whom may publish. The official clients end when dropped.
    pub(crate) fn start(
        &self,
        stage: &Rc<Stage>,
        homes: usize,
        publishes: impl Fn(usize, &str) -> bool,
    ) -> anyhow::Result<Vec<Official>> {
        let rooms = self.names();
        let publishers = u64::try_from(homes * self.publishers).unwrap_or(1).max(1);
        let pace = Duration::from_millis((1000 * publishers / self.rate.max(1)).max(1));
        for home in 0..homes {
            for number in 0..self.publishers {
                let mut own: Vec<String> = rooms.iter().filter(|room| publishes(home, room)).cloned().collect();
                // Not all in the same order, or all would be in the same room at once.
                let turn = own.len() * (home * self.publishers + number) / (homes * self.publishers).max(1);
                own.rotate_left(turn);
                if !own.is_empty() {
                    let me = Publisher { name: format!("p{home}{number}"), home, rooms: own, pace };
                    stage.tasks.spawn_local(publisher::run(me, stage.clone()));
                }
            }
            for (number, some) in rooms.chunks(self.rooms_per_subscriber.max(1)).enumerate() {
                let me = Subscriber { name: format!("s{home}-{number}"), home, rooms: some.to_vec() };
                stage.tasks.spawn_local(subscriber::run(me, stage.clone()));
            }
        }
        let some = |number: usize| {
            rooms
                .iter()
                .cycle()
                .skip(number * OFFICIAL_ROOMS)
                .take(OFFICIAL_ROOMS.min(rooms.len()))
                .cloned()
                .collect::<Vec<_>>()
        };
        (0..self.official).map(|number| official::start(stage, number, &some(number))).collect()
    }
}
