// Joining late while messages flow: exactly the last n, then everything live, no gap and no repeat.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MODES, connect, freshRoom, join, publish, range } from "./lib/client.mjs";
import { onOneAndThree } from "./lib/suite.mjs";
import { until } from "./lib/wait.mjs";

const LAST = 20;
const JOINERS = 12;

/** Publishes as fast as the answers come, eight at a time, until told to stop; answers how many. */
async function flow(sender, room, stop) {
  let next = 0;
  const lane = async () => {
    while (!stop.now) await publish(sender, room, "m", [next++]);
  };
  await Promise.all(range(0, 8).map(lane));
  return next;
}

onOneAndThree("late join", (nodes) => {
  for (const replay of ["ack", "events"]) {
    test(`history by ${replay}, joiners on every node and transport while messages flow`, async () => {
      const room = freshRoom();
      const sender = await connect(nodes()[0].url);
      const whole = kept(await connect(nodes().at(-1).url));
      await join(whole.socket, room);
      for (const n of range(0, LAST)) await publish(sender, room, "before", [n]);
      const stop = { now: false };
      const count = flow(sender, room, stop);
      const modes = Object.values(MODES);
      const seen = [];
      for (const n of range(0, JOINERS)) {
        const socket = await connect(nodes()[n % nodes().length].url, modes[n % 3]);
        const { items } = kept(socket);
        const answer = await join(socket, room, { history: { last: LAST }, replay });
        if (replay === "ack") {
          assert.equal(answer.history.length, LAST);
          items.unshift(...answer.history.map((item) => `${item.event}:${item.args[0]}`));
        } else {
          assert.equal(answer.replayed, LAST);
        }
        seen.push(items);
      }
      stop.now = true;
      const total = LAST + (await count);
      await until(() => whole.items.length === total, 8_000, () => `${total} messages, got ${whole.items.length}`);
      for (const items of seen) {
        await until(() => items.at(-1) === whole.items.at(-1), 8_000, () => `the last message after ${items.at(-1)}`);
        assert.deepEqual(items, whole.items.slice(whole.items.indexOf(items[0])));
      }
    });
  }
});

/** What this socket receives, in the order of arrival; listening before the join, as an app does. */
function kept(socket) {
  const items = [];
  for (const event of ["before", "m"]) socket.on(event, (value) => items.push(`${event}:${value}`));
  return { socket, items };
}
