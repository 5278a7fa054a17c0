// One round of "kill -9 in a burst of publishes": what was acked, what is there after the restart, and what is said about it.

import assert from "node:assert/strict";
import { connect, done, freshRoom, join, publish, range } from "./client.mjs";
import { message, stored } from "./store.mjs";
import { pause } from "./wait.mjs";

const SOCKETS = 6;
const ROOMS = 3;
const OUTSTANDING = 16;
/** What may be lost: acks that are younger than this when the process dies. */
export const WINDOW_MS = 250;

/** Settings of the node under test: history must not end by count, or a loss would hide behind it. */
export const SETTINGS = { STARLING_STORE__HISTORY__SIZE: "100000" };

/** Publishes from several clients at full speed, kills, restarts, checks. Answers the figures of the round. */
export async function killRound(node, afterMs) {
  const rooms = range(0, ROOMS).map(freshRoom);
  const sockets = await Promise.all(range(0, SOCKETS).map(() => connect(node.url, { transports: ["websocket"] })));
  const burst = new Burst(rooms);
  for (const socket of sockets) burst.from(socket);
  await pause(afterMs);
  const killedAt = performance.now();
  await node.stop("SIGKILL");
  burst.end();
  sockets.forEach((socket) => socket.disconnect());
  await node.start();
  const back = await connect(node.url, { transports: ["websocket"] });
  const round = { acked: 0, stored: 0, lost: 0, worstMs: 0 };
  for (const room of rooms) {
    const acks = burst.acks.get(room);
    assert.ok(acks.length > 0, `nothing was acked in ${room} within ${afterMs} ms`);
    const items = await stored(back, room);
    const worstMs = judge(room, acks, items, killedAt);
    await tellsSo(node, back, room, acks, items);
    round.acked += acks.length;
    round.stored += items.length;
    round.lost += acks.filter((ack) => !items.some((item) => item.n === ack.n)).length;
    round.worstMs = Math.max(round.worstMs, worstMs);
  }
  back.disconnect();
  return round;
}

/** Publishers that keep a number of messages on the way until told to stop. */
class Burst {
  constructor(rooms) {
    this.acks = new Map(rooms.map((room) => [room, []]));
    this.rooms = rooms;
    this.next = 0;
    this.over = false;
  }

  from(socket) {
    for (const _ of range(0, OUTSTANDING)) this.one(socket);
  }

  one(socket) {
    if (this.over) return;
    const n = (this.next += 1);
    const room = this.rooms[n % this.rooms.length];
    socket.emit("room:publish", { room, event: "m", args: message(room, n) }, (answer) => {
      if (answer.ok) this.acks.get(room).push({ n, offset: answer.offset, epoch: answer.epoch, at: performance.now() });
      this.one(socket);
    });
  }

  end() {
    this.over = true;
  }
}

/** What is stored is a prefix of what was stamped, and only young acks are missing. Answers the age of the oldest loss. */
function judge(room, acks, items, killedAt) {
  const byOffset = new Map(items.map((item) => [item.offset, item.n]));
  const end = items.at(-1)?.offset ?? 0;
  let worstMs = 0;
  for (const ack of acks) {
    if (byOffset.has(ack.offset)) {
      assert.equal(byOffset.get(ack.offset), ack.n, `offset ${ack.offset} of ${room} is another message than was acked`);
      continue;
    }
    assert.ok(ack.offset > end, `${room} has a hole: ${ack.offset} was acked and is missing before ${end}`);
    worstMs = Math.max(worstMs, killedAt - ack.at);
  }
  assert.ok(worstMs <= WINDOW_MS, `${room} lost a message that was acked ${worstMs.toFixed(0)} ms before the kill`);
  assert.equal(new Set(items.map((item) => item.n)).size, items.length, `${room} has a message twice`);
  return worstMs;
}

/** A late joiner gets exactly the last n; the epoch is new; an old cursor is not recovered; the room goes on. */
async function tellsSo(node, socket, room, acks, items) {
  const old = acks.at(-1);
  for (const last of [1, 20, 200]) {
    const late = await connect(node.url, { transports: ["websocket"] });
    const joined = await join(late, room, { history: { last } });
    assert.notEqual(joined.epoch, old.epoch, `${room} claims continuity`);
    assert.deepEqual(joined.history.map((item) => item.offset), items.slice(-last).map((item) => item.offset));
    late.disconnect();
  }
  const since = await done(socket, "room:join", { room, history: { since: old.offset, epoch: old.epoch } });
  assert.equal(since.recovered, false, `${room} says that the cursor of the killed life was recovered`);
  const n = 1_000_000 + acks.length;
  const next = await publish(socket, room, "m", message(room, n));
  assert.ok(next.offset > (items.at(-1)?.offset ?? 0), `${room} goes back from ${items.at(-1)?.offset} to ${next.offset}`);
  assert.equal((await stored(socket, room)).at(-1).n, n);
}
