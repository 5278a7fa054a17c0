// Traffic goes where members are: a node that neither orders a room, nor holds its second copy, nor has members in it gets none
// of its frames.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, freshRoom, gets, join, publish, range, received } from "./lib/client.mjs";
import { partsOf, roomFrames } from "./lib/frames.mjs";
import { onClusters } from "./lib/suite.mjs";
import { pause } from "./lib/wait.mjs";

const MESSAGES = 100;

/** A node keeps following a room for a while after its last member left, for members that only reload their page. */
const LINGER_MS = 16_000;

onClusters([3], "interest", (nodes) => {
  test("a node without part in a room receives no frame of it, until it has a member", async () => {
    const room = freshRoom();
    const { owner, idle } = await partsOf(nodes(), room);
    const member = await connect(owner.url);
    const list = received(member, "m");
    await join(member, room);
    const sender = await connect(owner.url);
    const before = await roomFrames(idle);
    await Promise.all(range(0, MESSAGES).map((n) => publish(sender, room, "m", [n])));
    await gets(list, MESSAGES);
    assert.deepEqual(await roomFrames(idle), before, `${idle.name} got frames of a room that is not its business`);

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
    const { owner, idle: guest } = await partsOf(nodes(), room);
    const sender = await connect(owner.url);
    const member = await connect(guest.url);
    const list = received(member, "m");
    await join(member, room);
    await publish(sender, room, "m", [1]);
    await gets(list, 1);
    member.disconnect();
    await pause(LINGER_MS);
    const frames = await roomFrames(guest);
    for (const n of range(0, MESSAGES)) await publish(sender, room, "m", [n]);
    assert.deepEqual(await roomFrames(guest), frames, `${guest.name} still gets frames of a room that its members left`);
  });
});
