// Stopping and starting again: what a clean stop keeps, what a hard kill must not claim, and how fast a stop is.

import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { ask, closeAll, connect, done, freshRoom, join, publish, range, received } from "./lib/client.mjs";
import { startCluster } from "./lib/cluster.mjs";
import { ownerOf } from "./lib/frames.mjs";
import { pause, until } from "./lib/wait.mjs";

describe("one process, stopped and started again", () => {
  let cluster;
  after(async () => {
    closeAll();
    await cluster?.stop();
  });

  test("SIGTERM keeps history, offsets and epoch", async () => {
    cluster = await startCluster(1);
    const [node] = cluster.nodes;
    const room = freshRoom();
    const first = await connect(node.url);
    for (const n of range(0, 50)) await publish(first, room, "m", [n]);
    const bytes = Buffer.from([1, 2, 3]);
    const last = await publish(first, room, "m", [bytes]);
    const end = await node.stop("SIGTERM");
    assert.deepEqual([end.code, end.signal], [0, null], node.log.join("\n"));

    await node.start();
    const second = await connect(node.url);
    const joined = await join(second, room, { history: { last: 21 } });
    assert.equal(joined.epoch, last.epoch);
    assert.equal(joined.offset, last.offset);
    assert.deepEqual(joined.history.map((item) => item.args[0]), [...range(30, 50), bytes]);
    const next = await publish(second, room, "m", ["after"]);
    assert.equal(next.epoch, last.epoch);
    assert.ok(next.offset > last.offset, `${next.offset} after ${last.offset}`);
  });

  test("a client that comes back with its cursor after the restart misses nothing", async () => {
    const [node] = cluster.nodes;
    const room = freshRoom();
    const sender = await connect(node.url);
    const seen = await publish(sender, room, "m", ["seen"]);
    await publish(sender, room, "m", ["missed"]);
    await node.stop("SIGTERM");
    await node.start();
    const back = await connect(node.url);
    const joined = await join(back, room, { history: { since: seen.offset, epoch: seen.epoch } });
    assert.equal(joined.recovered, true);
    assert.deepEqual(joined.history.map((item) => item.args), [["missed"]]);
  });

  test("SIGKILL keeps what was acknowledged a second ago and starts a new epoch", async () => {
    const [node] = cluster.nodes;
    const room = freshRoom();
    const sender = await connect(node.url);
    const last = await publish(sender, room, "m", ["old"]);
    await pause(1_000);
    await node.stop("SIGKILL");
    await node.start();
    const back = await connect(node.url);
    const joined = await join(back, room, { history: { since: last.offset, epoch: last.epoch } });
    assert.notEqual(joined.epoch, last.epoch);
    assert.equal(joined.recovered, false);
    assert.deepEqual(joined.history.map((item) => item.args), [["old"]]);
  });

  for (const signal of ["SIGTERM", "SIGINT"]) {
    test(`${signal} with open connections exits with 0 and soon`, async () => {
      const [node] = cluster.nodes;
      await Promise.all(range(0, 20).map((n) => connect(node.url, n % 2 ? {} : { transports: ["polling"] })));
      const end = await node.stop(signal);
      assert.deepEqual([end.code, end.signal], [0, null], node.log.join("\n"));
      assert.ok(end.ms < 8_000, `took ${end.ms} ms`);
      await node.start();
    });
  }

  test("clients see the transport close at a stop, which makes them come back", async () => {
    const [node] = cluster.nodes;
    const socket = await connect(node.url, { reconnection: true, reconnectionDelay: 100, reconnectionDelayMax: 200 });
    const reason = new Promise((tell) => socket.once("disconnect", tell));
    await node.stop("SIGTERM");
    assert.equal(await reason, "transport close");
    const back = new Promise((tell) => socket.once("connect", tell));
    await node.start();
    await back;
  });
});

describe("three processes, one of them stopped", () => {
  let cluster;
  after(async () => {
    closeAll();
    await cluster?.stop();
  });

  test("a clean stop of one node leaves the others serving, and it can come back", async () => {
    cluster = await startCluster(3);
    const [one, two, three] = cluster.nodes;
    const end = await three.stop("SIGTERM");
    assert.deepEqual([end.code, end.signal], [0, null], three.log.join("\n"));
    // Rooms that the stopped node owned have a new owner by now or soon; publishing says when.
    const sender = await connect(one.url);
    const member = await connect(two.url);
    for (const room of range(0, 12).map(freshRoom)) {
      const list = [];
      member.on(room, (value) => list.push(value));
      await join(member, room);
      await publish(sender, room, room, ["still here"]);
    }
    await three.start();
    await join(await connect(three.url), freshRoom());
  });

  test("a node killed hard: its rooms go on elsewhere, and neither publishers nor members see more than a pause", async () => {
    const room = freshRoom();
    const victim = await ownerOf(cluster.nodes, room);
    const [one, two] = cluster.nodes.filter((node) => node !== victim);
    const sender = await connect(one.url);
    const member = await connect(two.url);
    const before = await publish(sender, room, "m", ["before"]);
    const [list, gaps] = [received(member, "m"), received(member, "room:gap")];
    await join(member, room);
    await until(async () => (await one.cluster()).safe_to_lose_one, 15_000, () => "every slot to have two copies");
    await victim.stop("SIGKILL");
    let after;
    const accepted = async () => {
      after = await ask(sender, "room:publish", { room, event: "m", args: ["after"], id: "once" });
      return after.ok;
    };
    await until(accepted, 15_000, () => `a publish to be accepted; the last answer was ${JSON.stringify(after)}`);
    assert.equal(after.epoch, before.epoch);
    assert.ok(after.offset > before.offset, `${after.offset} after ${before.offset}`);
    await publish(sender, room, "m", ["live again"]);
    await until(() => list.at(-1) === "live again", 5_000, () => `the member to receive, got ${JSON.stringify(list)}`);
    assert.deepEqual([list, gaps], [["after", "live again"], []]);
    const { items } = await done(member, "room:history", { room });
    assert.deepEqual(items.map((item) => item.args[0]), ["before", "after", "live again"]);
    await victim.start();
    await join(await connect(victim.url), room);
  });
});
