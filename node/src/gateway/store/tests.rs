//! The order in which a shard's store hears of things, with a store in memory.

use mesh::{
    NodeId,
    room::RoomKey,
    wire::message::{Frame, Origin},
};

use super::*;
use crate::{app::gateway_with_inbox, handler::NoHandler, mailbox};

#[tokio::test]
async fn what_was_appended_before_its_slot_is_forgotten_goes_and_what_comes_after_stays() {
    let (mut gateway, mut inbox) = gateway_with_inbox("", NoHandler).unwrap();
    let (slot, other) = (frame("a", 1).slot, frame("b", 1).slot);
    assert_ne!(slot, other);
    append(&mut gateway, &[frame("a", 1), frame("b", 1)]);
    gateway.forget_slot(slot);
    append(&mut gateway, &[frame("a", 2)]);
    assert_eq!(scanned(&mut gateway, &mut inbox, slot).await, [2]);
    assert_eq!(scanned(&mut gateway, &mut inbox, other).await, [1], "another slot");
}

#[tokio::test]
async fn a_slot_is_scanned_in_parts_with_what_was_appended_this_turn() {
    let (mut gateway, mut inbox) = gateway_with_inbox("", NoHandler).unwrap();
    let large = |n| Frame { payload: vec![0; SCAN_BYTES_MAX / 2].into(), ..frame("a", n) };
    append(&mut gateway, &[large(1), large(2), large(3), large(4), large(5)]);
    let slot = large(1).slot;
    gateway.scan(7, slot, 0);
    let (first, next) = answer(&mut inbox, 7).await.unwrap();
    assert!(first.starts_with(&[1, 2]) && first.len() < 5 && next > 0, "{first:?} and more behind {next}");
    assert_eq!(scanned(&mut gateway, &mut inbox, slot).await, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn what_is_no_frame_of_this_version_is_passed_over() {
    let (mut gateway, mut inbox) = gateway_with_inbox("", NoHandler).unwrap();
    append(&mut gateway, &[frame("a", 1), frame("a", 3)]);
    let slot = frame("a", 1).slot;
    gateway.appends.push(Record { n: 4, body: "of the future".into(), ..record(&frame("a", 4), "".into()) });
    assert_eq!(scanned(&mut gateway, &mut inbox, slot).await, [1, 3]);
}

fn append(gateway: &mut Gateway, frames: &[Frame]) {
    gateway.appends.extend(frames.iter().map(|frame| record(frame, frame.encode())));
}

/// The numbers of all frames of a slot, read to the end.
async fn scanned(gateway: &mut Gateway, inbox: &mut mailbox::Receiver<Message>, slot: u16) -> Vec<u64> {
    let (mut all, mut after) = (Vec::new(), 0);
    for scan in 1..10 {
        gateway.scan(scan, slot, after);
        let (numbers, next) = answer(inbox, scan).await.unwrap();
        all.extend(numbers);
        after = next;
        if next == 0 {
            return all;
        }
    }
    panic!("a scan does not end: {all:?}");
}

/// The numbers of one part, and where the next begins.
async fn answer(inbox: &mut mailbox::Receiver<Message>, asked: u64) -> Option<(Vec<u64>, u64)> {
    let Some(Message::Scanned { scan, scanned }) = inbox.recv().await.pop_front() else { panic!("not an answer") };
    assert_eq!(scan, asked);
    scanned.map(|Scanned { frames, next }| (frames.iter().map(|frame| frame.n).collect(), next))
}

fn frame(room: &str, n: u64) -> Frame {
    let room = RoomKey::new("/", room);
    Frame {
        slot: room.slot(),
        room,
        lineage: 1,
        term: 1,
        n,
        prev: n - 1,
        origin: Origin { node: NodeId(0), generation: 1, shard: 0, oseq: n },
        time_ms: 1,
        flags: 0,
        id: "".into(),
        from: "".into(),
        except: Vec::new(),
        payload: "x".into(),
    }
}
