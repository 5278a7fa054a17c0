// Who orders a room: every node says who really does, also where the ring would have somebody else.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { afterEach, test } from "node:test";
import { ask, closeAll, connect, freshRoom, join, publish } from "./lib/client.mjs";
import { starling } from "./lib/cluster.mjs";
import { partsOf } from "./lib/frames.mjs";
import { onClusters } from "./lib/suite.mjs";
import { until } from "./lib/wait.mjs";

const WAIT_MS = 30_000;

const placement = async (node, room) => (await fetch(`${node.admin}/api/rooms/${room}`)).json();
const explain = (node, room) => spawnSync(starling(), ["explain", room, "--admin", node.admin], { encoding: "utf8" });

onClusters([3], "seats", (nodes) => {
  afterEach(closeAll);

  test("a room that nobody has used has no owner, and the ring says who will be it", async () => {
    const room = freshRoom();
    for (const node of nodes()) {
      const { owner, term, epoch, leads, ring, partial } = await placement(node, room);
      assert.deepEqual([owner, term, epoch, leads, partial], [null, null, null, false, false]);
      assert.deepEqual(Object.values(ring).sort(), ["gw-0", "gw-1", "gw-2"]);
    }
  });

  test("every node says who has the seats, the term, the epoch and that the copy is whole", async () => {
    const room = freshRoom();
    const { owner, replica, idle } = await partsOf(nodes(), room);
    const member = await connect(owner.url);
    const { epoch } = await join(member, room);
    for (const node of nodes()) {
      let said;
      await until(async () => (said = await placement(node, room)).replica_whole, WAIT_MS, () => `a whole copy: ${JSON.stringify(said)}`);
      assert.deepEqual([said.owner, said.replica, said.witness], [owner.name, replica.name, idle.name]);
      assert.deepEqual([said.leads, said.epoch, said.partial, said.silent], [true, epoch, false, []]);
      assert.ok(said.term >= 1);
      const { status, stdout } = explain(node, room);
      assert.equal(status, 0);
      const seats = `owner ${owner.name}, replica ${replica.name} (has everything), witness ${idle.name}; term ${said.term}, epoch ${epoch}`;
      assert.ok(stdout.split("\n").includes(seats), stdout);
    }
  });

  test("where the owner was followed, the follower is named, and the ring beside it", async () => {
    const room = freshRoom();
    const { owner, replica, idle } = await partsOf(nodes(), room);
    const sender = await connect(idle.url);
    const { epoch } = await join(sender, room);
    await until(async () => (await placement(idle, room)).replica_whole, WAIT_MS, () => "a whole copy");
    const { term, ring } = await placement(idle, room);
    process.kill(owner.pid, "SIGSTOP");
    try {
      let said;
      const followed = async () => (said = await placement(idle, room)).owner === replica.name && said.leads;
      await until(followed, WAIT_MS, () => `the replica to lead: ${JSON.stringify(said)}`);
      assert.ok(said.term > term);
      assert.equal(said.epoch, epoch);
      assert.deepEqual([said.partial, said.silent], [true, [owner.name]]);
      if (said.ring.owner === owner.name) assert.deepEqual(said.ring, ring, "the ring follows later");
      await publish(sender, room, "m", ["by the follower"]);
    } finally {
      process.kill(owner.pid, "SIGCONT");
    }
    const back = async () => {
      const all = await Promise.all(nodes().map((node) => placement(node, room)));
      return all.every((said) => said.leads && said.owner === ring.owner && said.replica_whole && !said.partial);
    };
    await until(back, WAIT_MS, () => "the slot where the ring has it");
    const { items } = await ask(sender, "room:history", { room, limit: 1, reverse: true });
    assert.deepEqual(items[0].args, ["by the follower"]);
  });
});

onClusters([1], "seats", (nodes) => {
  test("a node alone orders what was used", async () => {
    const room = freshRoom();
    const [node] = nodes();
    assert.equal((await placement(node, room)).owner, null);
    const socket = await connect(node.url);
    const { epoch } = await join(socket, room);
    const { owner, replica, leads, replica_whole, epoch: said } = await placement(node, room);
    assert.deepEqual([owner, replica, leads, replica_whole, said], [node.name, null, true, null, epoch]);
  });
});
