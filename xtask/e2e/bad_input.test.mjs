// Whatever arrives, the process lives on, refuses it the documented way, and everybody else loses nothing: a canary
// room is written to all the while.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { events } from "./bad/events.mjs";
import { frames } from "./bad/frames.mjs";
import { http } from "./bad/http.mjs";
import { packets } from "./bad/packets.mjs";
import { closeAll, connect, join, publish, range, received } from "./lib/client.mjs";
import { startCluster } from "./lib/cluster.mjs";
import { pause, until } from "./lib/wait.mjs";

const CANARY_EVERY_MS = 10;

describe("bad input", () => {
  let cluster, node, canary, caller;
  before(async () => {
    cluster = await startCluster(1);
    [node] = cluster.nodes;
    canary = await startCanary(node);
    caller = await connect(node.url);
  });
  after(async () => {
    closeAll();
    await cluster?.stop();
  });

  test("there are at least sixty cases", () => {
    const names = [...http, ...packets, ...frames, ...events].map((one) => one.name);
    assert.ok(names.length >= 60, `${names.length} cases`);
  });

  for (const [group, cases] of Object.entries({ http, packets, frames })) {
    for (const { name, run } of cases) test(`${group}: ${name}`, () => run(node));
  }
  for (const { name, asks } of events) test(`events: ${name}`, () => asks(caller));

  test("the process is the one that was started, and the canary lost nothing", async () => {
    assert.equal(node.end, undefined, node.log.join("\n"));
    const log = node.log.join("\n");
    assert.doesNotMatch(log, /panicked/);
    assert.equal((await fetch(`${node.admin}/livez`)).status, 200);
    const sent = await canary.stop();
    assert.ok(sent > 50, `only ${sent} messages were sent meanwhile`);
    await until(() => canary.got.length >= sent, 5_000, () => `${sent} messages, got ${canary.got.length}`);
    assert.deepEqual(canary.got, range(0, sent));
  });
});

/** A publisher and a member that have nothing to do with the rest. */
async function startCanary(node) {
  const [sender, member] = [await connect(node.url), await connect(node.url)];
  const got = received(member, "tweet");
  await join(member, "canary");
  let [sent, stopped] = [0, false];
  const flow = (async () => {
    while (!stopped) {
      await publish(sender, "canary", "tweet", [sent]);
      sent += 1;
      await pause(CANARY_EVERY_MS);
    }
  })();
  const stop = async () => {
    stopped = true;
    await flow;
    return sent;
  };
  return { got, stop };
}
