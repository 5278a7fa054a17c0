// One order for everyone, and nothing lost, with publishers and members on every node.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MODES, connect, freshRoom, gets, join, publish, range, received } from "./lib/client.mjs";
import { onOneAndThree } from "./lib/suite.mjs";

onOneAndThree("order", (nodes) => {
  test("a message published on one node arrives at the members of every node", async () => {
    const room = freshRoom();
    const members = await Promise.all(nodes().map((node) => connect(node.url)));
    const lists = members.map((member) => received(member, "m"));
    await Promise.all(members.map((member) => join(member, room)));
    for (const node of nodes()) {
      const sender = await connect(node.url);
      await publish(sender, room, "m", [node.name]);
    }
    for (const list of lists) {
      await gets(list, nodes().length);
      assert.deepEqual(list, nodes().map((node) => node.name));
    }
  });

  test("three concurrent publishers: every member sees the same order, each publisher's own order kept", async () => {
    const room = freshRoom();
    const each = 100;
    const place = (index) => nodes()[index % nodes().length].url;
    const modes = Object.values(MODES);
    const members = await Promise.all(range(0, 9).map((n) => connect(place(n), modes[n % 3])));
    const lists = members.map((member) => received(member, "m"));
    await Promise.all(members.map((member) => join(member, room)));
    const publishers = await Promise.all(range(0, 3).map((n) => connect(place(n))));
    await Promise.all(
      publishers.flatMap((publisher, who) => range(0, each).map((n) => publish(publisher, room, "m", [`${who}:${n}`]))),
    );
    for (const list of lists) await gets(list, 3 * each);
    for (const list of lists) assert.deepEqual(list, lists[0]);
    for (const who of range(0, 3)) {
      const own = lists[0].filter((id) => id.startsWith(`${who}:`));
      assert.deepEqual(own, range(0, each).map((n) => `${who}:${n}`));
    }
    const late = await join(await connect(place(1)), room, { history: { last: 3 * each } });
    assert.deepEqual(late.history.map((item) => item.args[0]), lists[0], "history has the order that members saw");
  });

  test("large messages cross unharmed between small ones", async () => {
    const room = freshRoom();
    const [sender, member] = [await connect(nodes()[0].url), await connect(nodes().at(-1).url)];
    const list = received(member, "m");
    await join(member, room);
    const sizes = [1, 300_000, 2, 64 * 1024, 3, 700_000];
    for (const size of sizes) await publish(sender, room, "m", ["é".repeat(size / 2) + "x"]);
    await gets(list, sizes.length);
    assert.deepEqual(list.map((text) => text.length), sizes.map((size) => Math.floor(size / 2) + 1));
  });

  test("many rooms at once keep to themselves", async () => {
    const rooms = range(0, 40).map(freshRoom);
    const place = (n) => nodes()[n % nodes().length].url;
    const members = await Promise.all(rooms.map((_, n) => connect(place(n), MODES["websocket only"])));
    const lists = members.map((member) => received(member, "m"));
    await Promise.all(members.map((member, n) => join(member, rooms[n])));
    const sender = await connect(nodes()[0].url);
    await Promise.all(range(0, 200).map((n) => publish(sender, rooms[n % rooms.length], "m", [n])));
    for (const [n, list] of lists.entries()) {
      await gets(list, 5);
      assert.deepEqual(list, range(0, 5).map((k) => n + k * rooms.length));
    }
  });
});
