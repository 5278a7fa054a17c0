// Clients with the msgpack parser beside those with JSON: the same rooms, the same values, the same order.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MODES, PARSERS, ask, connect, done, freshRoom, gets, join, publish, range, received } from "./lib/client.mjs";
import { onOneAndThree } from "./lib/suite.mjs";

const { JSON: json, msgpack } = PARSERS;

/** What clients send, and what members get whatever their parser: what JSON.stringify makes of it, and bytes as bytes. */
const VALUES = [
  [[0, 1, -1, 127, 128, -128, 65536, 2 ** 32, -(2 ** 33), Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER]],
  [[0.5, -1.25, 5e-324, 0.1, 1.5e-300]],
  [["", "ascii", "é ✓ \u{1f426} \u2028 \u0000 \"\\", "x".repeat(70_000)]],
  [[true, false, null, [], {}, [[[[]]]], { "": 0, "with space": { deep: [{}] } }]],
  [[undefined, NaN, Infinity], [null, null, null]],
  [[new Date(1_700_000_000_123)], ["2023-11-14T22:13:20.123Z"]],
  [[Buffer.from("bytes")]],
  [[{ nested: [1, { deep: Buffer.from([0, 255]) }, "between", Buffer.alloc(0)] }, Buffer.alloc(100_000, 7)]],
];

/** Whole numbers of more than 64 bits, of which the client's msgpack encoder sends the low ones only. */
const HUGE = [[1e21, -1e21, 1e300]];

/** What members must have got for one of the values. */
const wanted = (value) => value.at(-1);

/** The same with every kind of binary as a Buffer: browsers and Node give different ones. */
function plain(value) {
  if (value instanceof ArrayBuffer) return Buffer.from(value);
  if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, of]) => [key, plain(of)]));
}

/** The lists of arguments that the socket receives with this event. */
function all(socket, event) {
  const list = [];
  socket.on(event, (...args) => list.push(plain(args)));
  return list;
}

onOneAndThree("msgpack", (nodes) => {
  const place = (index) => nodes()[index % nodes().length].url;
  /** A socket for every parser and way to connect, spread over the nodes. */
  const everyKind = () => {
    const kinds = Object.values(MODES).flatMap((mode) => [{ ...mode, ...msgpack }, { ...mode, ...json }]);
    return Promise.all(kinds.map((options, index) => connect(place(index), options)));
  };

  for (const [name, parser] of Object.entries(PARSERS)) {
    test(`values of a publisher with ${name} are the same to everybody, live, replayed and in history`, async () => {
      const room = freshRoom();
      const sender = await connect(place(0), parser);
      const members = await everyKind();
      const lists = members.map((member) => all(member, "v"));
      for (const member of members) await join(member, room);
      const values = parser === json ? [...VALUES, HUGE] : VALUES;
      for (const [sent] of values) await publish(sender, room, "v", sent);
      const expected = values.map(wanted);
      for (const list of lists) {
        await gets(list, expected.length);
        assert.deepEqual(list, expected);
      }
      for (const member of members) {
        const page = await done(member, "room:history", { room });
        assert.deepEqual(plain(page.items.map((item) => item.args)), expected);
        const joined = await join(member, room, { history: { last: 3 } });
        assert.deepEqual(plain(joined.history.map((item) => item.args)), expected.slice(-3));
        assert.equal(joined.offset, page.offset);
      }
      for (const [index, late] of (await everyKind()).entries()) {
        const list = all(late, "v");
        const joined = await join(late, room, { history: { last: expected.length }, replay: "events" });
        assert.equal(joined.replayed, expected.length);
        await gets(list, expected.length);
        assert.deepEqual(list, expected, `late joiner ${index}`);
      }
    });
  }

  test("every kind of member sees one order, and each publisher is left out of its own", async () => {
    const room = freshRoom();
    const each = 150;
    const members = await everyKind();
    const lists = members.map((member) => received(member, "m"));
    await Promise.all(members.map((member) => join(member, room)));
    await Promise.all(
      members.flatMap((member, who) => range(0, each).map((n) => publish(member, room, "m", [`${who}:${n}`]))),
    );
    const total = members.length * each;
    const { items } = await done(members[0], "room:history", { room, limit: 1_000 });
    const order = items.map((item) => item.args[0]);
    assert.equal(order.length, total);
    for (const [who, list] of lists.entries()) {
      await gets(list, total - each);
      assert.deepEqual(list, order.filter((id) => !id.startsWith(`${who}:`)));
    }
  });

  test("a history of many binary messages is bytes to msgpack, and base64 to JSON, which takes ten", async () => {
    const room = freshRoom();
    const sender = await connect(place(0), msgpack);
    for (const n of range(0, 12)) await publish(sender, room, "b", [Buffer.from([n])]);
    const native = await done(await connect(place(1), msgpack), "room:history", { room });
    assert.deepEqual(plain(native.items.map((item) => item.args[0])), range(0, 12).map((n) => Buffer.from([n])));
    const text = await done(await connect(place(1), json), "room:history", { room });
    assert.deepEqual(text.items[1].args[0], { $base64: "AQ==" });
  });

  test("namespaces, their refusal, acknowledgements and volatile messages are msgpack too", async () => {
    const socket = await connect(place(0), msgpack, "/first");
    const others = range(0, 7).map((n) => socket.io.socket(`/other-${n}`));
    await Promise.all(others.map((other) => new Promise((joined) => other.on("connect", joined))));
    const refused = socket.io.socket("/one-too-many");
    const [error] = await new Promise((told) => refused.on("connect_error", (...args) => told(args)));
    assert.equal(error.message, "too many namespaces on one connection");
    assert.deepEqual(error.data, { code: "limit_reached" });
    const answer = await ask(others[0], "nobody-knows-this", Buffer.from("x"));
    assert.equal(answer.code, "unhandled_event");
    const [list, elsewhere] = [all(others[1], "m"), all(others[2], "m")];
    const room = freshRoom();
    await join(others[1], room);
    await join(others[2], room);
    const sender = await connect(place(1), json, "/other-1");
    await publish(sender, room, "m", ["gone"], { volatile: true });
    await gets(list, 1);
    assert.deepEqual([list, elsewhere], [[["gone"]], []]);
    others[1].disconnect();
    await publish(sender, room, "m", ["nobody"], { volatile: true });
    await ask(socket, "room:leave", { room });
    assert.equal(list.length, 1);
  });
});
