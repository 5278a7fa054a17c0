// What an app does first: connect, ask, send bytes, use a namespace, in each of the client's three modes.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MODES, ask, connect, done, freshRoom, gets, join, publish, received } from "./lib/client.mjs";
import { onOneAndThree } from "./lib/suite.mjs";
import { until } from "./lib/wait.mjs";

onOneAndThree("connecting", (nodes) => {
  for (const [mode, options] of Object.entries(MODES)) {
    test(`${mode}: connects and ends on the expected transport`, async () => {
      const socket = await connect(nodes()[0].url, options);
      const transport = mode === "polling only" ? "polling" : "websocket";
      const engine = socket.io.engine;
      await until(() => engine.transport.name === transport, 5_000, () => `the ${transport} transport`);
      assert.ok(!socket.recovered, "a fresh session is not a recovered one");
      assert.notEqual(socket.id, engine.id, "the public id must not be the secret session id");
      assert.equal(socket.connected, true);
    });

    test(`${mode}: messages sent while the transport is upgraded are neither lost nor reordered`, async () => {
      const room = freshRoom();
      const member = await connect(nodes().at(-1).url, options);
      const list = received(member, "n");
      await join(member, room);
      const sender = await connect(nodes()[0].url, options);
      const answers = Array.from({ length: 60 }, (_, n) => publish(sender, room, "n", [n]));
      await Promise.all(answers);
      await gets(list, 60);
      assert.deepEqual(list, Array.from({ length: 60 }, (_, n) => n));
    });

    test(`${mode}: bytes arrive as the same bytes, several in one message and between other values`, async () => {
      const room = freshRoom();
      const [sender, member] = [await connect(nodes()[0].url, options), await connect(nodes().at(-1).url, options)];
      const got = [];
      member.on("file", (...args) => got.push(args));
      await join(member, room);
      const first = Buffer.from([0, 1, 2, 253, 254, 255]);
      const second = Buffer.alloc(5_000, 7);
      await publish(sender, room, "file", ["name", first, { more: second, n: 1 }]);
      await gets(got, 1);
      assert.deepEqual(got[0], ["name", first, { more: second, n: 1 }]);
    });
  }

  test("an event that nobody handles is answered, not ignored", async () => {
    const socket = await connect(nodes()[0].url);
    const answer = await ask(socket, "chat message", "hello");
    assert.equal(answer.ok, false);
    assert.equal(answer.code, "unhandled_event");
  });

  test("the same room name in two namespaces is two rooms", async () => {
    const room = freshRoom();
    const plain = await connect(nodes()[0].url, {}, "/");
    const chat = await connect(nodes()[0].url, {}, "/chat");
    const sender = await connect(nodes().at(-1).url, {}, "/chat");
    const [inPlain, inChat] = [received(plain, "m"), received(chat, "m")];
    await join(plain, room);
    await join(chat, room);
    await publish(sender, room, "m", ["only for chat"]);
    await gets(inChat, 1);
    assert.deepEqual(inPlain, []);
  });

  test("two namespaces share one connection", async () => {
    const plain = await connect(nodes()[0].url, { forceNew: false, multiplex: true });
    const chat = plain.io.socket("/chat");
    await until(() => chat.connected, 5_000, () => "the second namespace");
    assert.notEqual(plain.id, chat.id);
    await done(chat, "room:join", { room: freshRoom() });
    chat.disconnect();
    await done(plain, "room:join", { room: freshRoom() });
  });

  test("a client whose transport breaks comes back by itself with a new id", async () => {
    const socket = await connect(nodes()[0].url, { reconnection: true, reconnectionDelay: 50 });
    const before = socket.id;
    socket.io.engine.close();
    await until(() => socket.connected && socket.id !== before, 8_000, () => "the client to come back");
    await join(socket, freshRoom());
  });
});
