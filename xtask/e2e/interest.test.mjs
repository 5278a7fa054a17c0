// Traffic goes where members are: a node that neither owns a room nor has members in it gets none of its frames.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, freshRoom, gets, join, publish, range, received } from "./lib/client.mjs";
import { roomFrames, ownerOf } from "./lib/frames.mjs";
import { onClusters } from "./lib/suite.mjs";

const MESSAGES = 100;

onClusters([3], "interest", (nodes) => {
  test("a node without part in a room receives no frame of it, until it has a member", async () => {
    const [first] = nodes();
    const room = freshRoom();
    const owner = await ownerOf(nodes(), room);
    const idle = nodes().find((node) => node !== first && node !== owner);
    const member = await connect(first.url);
    const list = received(member, "m");
    await join(member, room);
    const sender = await connect(first.url);
    const before = await roomFrames(idle);
    await Promise.all(range(0, MESSAGES).map((n) => publish(sender, room, "m", [n])));
    await gets(list, MESSAGES);
    assert.equal((await roomFrames(idle)) - before, 0, `${idle.name} got frames of a room that is not its business`);

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
    const owner = await ownerOf(nodes(), room);
    const guest = nodes().find((node) => node !== owner);
    const sender = await connect(owner.url);
    const member = await connect(guest.url);
    const list = received(member, "m");
    await join(member, room);
    await publish(sender, room, "m", [1]);
    await gets(list, 1);
    member.disconnect();
    // Leaving is told to the owner in the background; a room's traffic must end soon, not at once.
    let frames = await roomFrames(guest);
    for (let quiet = 0, tries = 0; quiet < 5; tries += 1) {
      assert.ok(tries < 100, `${guest.name} still receives frames of a room that its last member left`);
      await publish(sender, room, "m", [2]);
      const now = await roomFrames(guest);
      quiet = now === frames ? quiet + 1 : 0;
      frames = now;
    }
  });
});
