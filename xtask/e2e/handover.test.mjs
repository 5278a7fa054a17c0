// A node that leaves gives its slots to others first: nobody notices but by who answers.

import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { ask, closeAll, connect, done, freshRoom, join, publish, range, received } from "./lib/client.mjs";
import { startCluster } from "./lib/cluster.mjs";
import { until } from "./lib/wait.mjs";

/** Rooms, so many that every node owns some, each with a first message. */
async function usedRooms(sender) {
  const rooms = range(0, 36).map(freshRoom);
  const first = new Map();
  for (const room of rooms) first.set(room, await publish(sender, room, room, [0]));
  return { rooms, first };
}

describe("three processes, one of them told to stop", () => {
  let cluster;
  after(async () => {
    closeAll();
    await cluster?.stop();
  });

  test("its rooms go on without a lost or repeated message, a gap or a new epoch", async (context) => {
    cluster = await startCluster(3);
    const [one, two, three] = cluster.nodes;
    const sender = await connect(one.url);
    const member = await connect(two.url);
    const { rooms, first } = await usedRooms(sender);
    const lists = rooms.map((room) => received(member, room));
    const gaps = received(member, "room:gap");
    for (const room of rooms) await join(member, room);

    // What members count of themselves may be a second or two old: it has to know of these rooms, too.
    const settled = async () => {
      const { safe_to_lose_one: safe, members } = await one.cluster();
      return safe && members.every(({ open }) => open.owned > 0);
    };
    await until(settled, 15_000, () => "every slot to have two copies");
    const { members, single_copy_slots } = await one.cluster();
    const sum = (role) => members.reduce((all, { open }) => all + open[role], 0);
    assert.deepEqual([sum("replica"), sum("witness"), sum("syncing")], [sum("owned"), sum("owned"), 0]);
    assert.equal(single_copy_slots, 0);
    for (const { node, open } of members) assert.ok(open.owned > 0, `${node} owns no slot that is in use`);

    let stopped;
    const end = three.stop("SIGTERM").then((end) => (stopped = end));
    const acked = rooms.map(() => []);
    // Whoever is refused tries again with the same id, as a client does.
    const insist = async (index, n) => {
      const room = rooms[index];
      const body = { room, event: room, args: [n], id: `${room}-${n}` };
      for (;;) {
        const answer = await ask(sender, "room:publish", body);
        if (answer.ok) return acked[index].push({ n, ...answer });
        assert.equal(answer.code, "overloaded", JSON.stringify(answer));
      }
    };
    let [n, longest] = [0, 0];
    while (!stopped || n < 20) {
      n += 1;
      const begun = performance.now();
      await Promise.all(rooms.map((_, index) => insist(index, n)));
      longest = Math.max(longest, performance.now() - begun);
    }
    context.diagnostic(`longest wait for an ack in ${rooms.length} rooms: ${longest.toFixed()} ms; ${n} messages each`);
    await end;
    assert.deepEqual([stopped.code, stopped.signal], [0, null], three.log.join("\n"));
    assert.ok(stopped.ms < 12_000, `took ${stopped.ms} ms`);
    assert.ok(three.log.some((line) => line.includes("all slots are with other nodes")), three.log.join("\n"));

    await until(() => lists.every((list) => list.at(-1) === n), 10_000, () => "the last message in every room");
    for (const [index, room] of rooms.entries()) {
      assert.deepEqual(lists[index], range(1, n + 1), `${room}: each once, in order`);
      const epochs = new Set(acked[index].map((answer) => answer.epoch));
      assert.deepEqual([...epochs], [first.get(room).epoch], `${room}: its epoch`);
      const { items } = await done(sender, "room:history", { room, limit: 1_000 });
      assert.deepEqual(items.map((item) => item.args[0]), range(0, n + 1), `${room}: its history`);
    }
    assert.deepEqual(gaps, []);
    const after = async () => (await one.cluster()).members.filter(({ state }) => state === "alive");
    const slots = sum("owned");
    const spread = async () => (await after()).reduce((all, { open }) => all + open.owned, 0) === slots;
    await until(spread, 5_000, () => `the two that are left to own all ${slots} slots`);
  });

  test("the last two: one hands over, the other has nobody to hand over to and does not wait", async () => {
    const [one, two] = cluster.nodes;
    const first = await two.stop("SIGTERM");
    assert.deepEqual([first.code, first.signal], [0, null], two.log.join("\n"));
    const last = await one.stop("SIGTERM");
    assert.deepEqual([last.code, last.signal], [0, null], one.log.join("\n"));
    assert.ok(last.ms < 5_000, `took ${last.ms} ms`);
  });
});
