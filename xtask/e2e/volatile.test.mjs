// Volatile messages go straight from the publisher's node to the nodes with members, and need no owner once they do.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { ask, closeAll, connect, freshRoom, gets, join, publish, range, received } from "./lib/client.mjs";
import { partsOf, roomFrames } from "./lib/frames.mjs";
import { onClusters } from "./lib/suite.mjs";
import { pause, until } from "./lib/wait.mjs";

const MESSAGES = 100;
/** After this long without a word of the owner its replica follows it; until then nobody else has noticed anything. */
const OWNER_SILENT_MS = 1_000;
const EVERY_MS = 20;
const WAIT_MS = 20_000;
const volatile = { volatile: true };
const dontWait = { transports: ["websocket"] };

onClusters([3], "volatile", (nodes) => {
  afterEach(closeAll);

  test("the owner of a room hears of the first ones, and who has members of all", async () => {
    const room = freshRoom();
    const { owner, replica, idle } = await partsOf(nodes(), room);
    const member = await connect(idle.url, dontWait);
    const list = received(member, "m");
    await join(member, room);
    const sender = await connect(replica.url, dontWait);
    await publish(sender, room, "m", ["first"], volatile);
    await gets(list, 1);
    const before = [await roomFrames(owner), await roomFrames(idle)];
    for (const n of range(0, MESSAGES)) await publish(sender, room, "m", [n], volatile);
    await gets(list, 1 + MESSAGES);
    const after = [await roomFrames(owner), await roomFrames(idle)];
    assert.deepEqual(after[0], before[0], "the owner carries what goes straight");
    assert.equal(after[1].show - before[1].show, MESSAGES);
    assert.deepEqual(list, ["first", ...range(0, MESSAGES)]);
  });

  test("an owner that stands still stops nobody's volatile messages", async () => {
    const room = freshRoom();
    const { owner, replica, idle } = await partsOf(nodes(), room);
    const [sender, beside, there, stopped] = await Promise.all(
      [replica, replica, idle, owner].map((node) => connect(node.url, dontWait)),
    );
    const lists = [beside, there, stopped].map((socket) => received(socket, "m"));
    await Promise.all([beside, there, stopped].map((socket) => join(socket, room)));
    await publish(sender, room, "m", ["before"], volatile);
    await Promise.all(lists.map((list) => gets(list, 1)));

    process.kill(owner.pid, "SIGSTOP");
    const since = performance.now();
    const said = [];
    try {
      // Ordered messages wait for somebody who orders them; what is volatile is said and answered meanwhile.
      const ordered = ask(sender, "room:publish", { room, event: "ordered", args: [] });
      while (performance.now() - since < OWNER_SILENT_MS / 2) {
        const start = performance.now();
        assert.deepEqual(await publish(sender, room, "m", [said.length], volatile), { ok: true });
        assert.ok(performance.now() - start < OWNER_SILENT_MS / 2, "a volatile message waits");
        said.push(said.length);
        await pause(EVERY_MS);
      }
      await Promise.all(lists.slice(0, 2).map((list) => gets(list, 1 + said.length)));
      assert.deepEqual(lists[1].slice(1), said);
      assert.equal((await ordered).ok, true);
      const heard = lists[1].length;
      await until(async () => {
        await publish(sender, room, "m", ["later"], volatile);
        return lists[1].length > heard;
      }, WAIT_MS, () => "what is said after somebody else orders the room");
    } finally {
      process.kill(owner.pid, "SIGCONT");
    }
    let again = 0;
    await until(async () => {
      await publish(sender, room, "m", [`again ${again++}`], volatile);
      await pause(EVERY_MS);
      return lists[2].some((text) => `${text}`.startsWith("again"));
    }, WAIT_MS, () => "the node that stood still to hear again");
    await pause(OWNER_SILENT_MS);
    for (const list of lists) {
      const numbered = list.filter((text) => text !== "later");
      assert.equal(new Set(numbered).size, numbered.length, "something volatile came twice");
    }
    const history = await ask(sender, "room:history", { room, limit: 100 });
    assert.ok(history.items.every((item) => item.event !== "m"), "something volatile is history");
  });
}, ["--shards", "2"]);
