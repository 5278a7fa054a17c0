// The store under a hard kill and under damage, in short; `cargo xtask kill-store` and `damage-store` are the long forms.

import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { closeAll, connect, freshRoom, join, publish, range } from "./lib/client.mjs";
import { startCluster } from "./lib/cluster.mjs";
import { SHORT, runCase } from "./lib/damage.mjs";
import { SETTINGS, killRound } from "./lib/kill.mjs";
import { message, proven, stored } from "./lib/store.mjs";

describe("one process, killed hard in a burst of publishes", () => {
  let cluster;
  after(async () => {
    closeAll();
    await cluster?.stop();
  });

  for (const round of range(1, 4)) {
    test(`round ${round}: nothing acked long before is missing, the epoch says so, late joiners get the last`, async () => {
      cluster ??= await startCluster(1, [], SETTINGS);
      const { acked } = await killRound(cluster.nodes[0], 300 + Math.random() * 500);
      assert.ok(acked > 100, `only ${acked} acked`);
    });
  }

  test("an epoch of two lives ago never comes back", async () => {
    const [node] = cluster.nodes;
    const room = freshRoom();
    const first = await publish(await connect(node.url), room, "m", ["clean"]);
    await node.stop("SIGTERM");
    await node.start();
    const second = await publish(await connect(node.url), room, "m", ["killed"]);
    assert.equal(second.epoch, first.epoch);
    await node.stop("SIGKILL");
    await node.start();
    // Nobody touches the room in this life: what the first one left of it is not true any more.
    await node.stop("SIGTERM");
    await node.start();
    const joined = await join(await connect(node.url), room, { history: { since: first.offset, epoch: first.epoch } });
    assert.notEqual(joined.epoch, first.epoch);
    assert.equal(joined.recovered, false);
  });
});

describe("history is kept by count", () => {
  let cluster;
  after(async () => {
    closeAll();
    await cluster?.stop();
  });

  test("pages end at the newest so many, from memory and from the disk after a restart", async () => {
    cluster = await startCluster(1, [], { STARLING_STORE__HISTORY__SIZE: "120" });
    const [node] = cluster.nodes;
    const room = freshRoom();
    const socket = await connect(node.url);
    for (const n of range(0, 300)) await publish(socket, room, "m", message(room, n));
    assert.deepEqual((await stored(socket, room)).map((item) => item.n), range(180, 300));
    await node.stop("SIGTERM");
    await node.start();
    const back = await connect(node.url);
    assert.deepEqual((await stored(back, room)).map((item) => item.n), range(180, 300));
    const joined = await join(back, room, { history: { last: 1_000 } });
    assert.deepEqual(joined.history.map((item) => proven(room, item.args)), range(180, 300));
  });
});

describe("one process on a damaged disk", () => {
  after(closeAll);
  for (const one of SHORT) {
    test(one.name, async (context) => {
      const outcome = await runCase(one);
      if (outcome.startsWith("SKIPPED")) context.skip(outcome);
    });
  }
});
