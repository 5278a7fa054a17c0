// Traffic goes where members are: a node that has no members in a room, and none of its two copies, gets none of its frames.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, freshRoom, gets, join, publish, range, received } from "./lib/client.mjs";
import { placeOf, roomBytes } from "./lib/frames.mjs";
import { onClusters } from "./lib/suite.mjs";
import { pause } from "./lib/wait.mjs";

const MESSAGES = 100;
const BODY = "x".repeat(10_000);

/** Less than one of twenty messages would be: who votes on a slot hears a little about it. */
const TALK_BYTES = (MESSAGES / 20) * BODY.length;

/** A node keeps following a room for a while after its last member left, for members that only reload their page. */
const LINGER_MS = 16_000;

onClusters([3], "interest", (nodes) => {
  test("a node without part in a room receives no frame of it, until it has a member", async () => {
    const [first] = nodes();
    let [room, idle] = [undefined, first];
    while (idle === first) {
      room = freshRoom();
      idle = (await placeOf(nodes(), room)).witness;
    }
    const member = await connect(first.url);
    const list = received(member, "m");
    await join(member, room);
    const sender = await connect(first.url);
    const before = await roomBytes(idle);
    await Promise.all(range(0, MESSAGES).map((n) => publish(sender, room, "m", [n, BODY])));
    await gets(list, MESSAGES);
    const bytes = (await roomBytes(idle)) - before;
    assert.ok(bytes < TALK_BYTES, `${idle.name} got ${bytes} bytes of a room that is not its business`);

    const late = await connect(idle.url);
    const lateList = received(late, "m");
    const joined = await join(late, room, { history: { last: 10 } });
    assert.deepEqual(joined.history.map((item) => item.args[0]), range(MESSAGES - 10, MESSAGES));
    await publish(sender, room, "m", ["live"]);
    await gets(lateList, 1);

    late.disconnect();
    await gets(list, MESSAGES + 1);
  });

  test("a node whose last member left stops receiving", async () => {
    const room = freshRoom();
    const { owner, witness: guest } = await placeOf(nodes(), room);
    const sender = await connect(owner.url);
    const member = await connect(guest.url);
    const list = received(member, "m");
    await join(member, room);
    await publish(sender, room, "m", [1]);
    await gets(list, 1);
    member.disconnect();
    await pause(LINGER_MS);
    const before = await roomBytes(guest);
    for (const n of range(0, MESSAGES)) await publish(sender, room, "m", [n, BODY]);
    const bytes = (await roomBytes(guest)) - before;
    assert.ok(bytes < TALK_BYTES, `${guest.name} still got ${bytes} bytes of a room that its members left`);
  });
});
