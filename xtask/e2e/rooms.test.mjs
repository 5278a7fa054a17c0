// The built-in room events, answer by answer.

import assert from "node:assert/strict";
import { test } from "node:test";
import { PARSERS, ask, connect, done, freshRoom, gets, join, publish, range, received, refused } from "./lib/client.mjs";
import { onOneAndThree } from "./lib/suite.mjs";
import { until } from "./lib/wait.mjs";

const contract = (parser) => (nodes) => {
  /** A sender on the first node and a member on the last. */
  const pair = async () => [await connect(nodes()[0].url, parser), await connect(nodes().at(-1).url, parser)];

  test("the publisher is left out unless it asks for an echo", async () => {
    const room = freshRoom();
    const [sender, member] = await pair();
    const [own, others] = [received(sender, "m"), received(member, "m")];
    await join(sender, room);
    await join(member, room);
    await publish(sender, room, "m", ["one"]);
    await publish(sender, room, "m", ["two"], { echo: true });
    await gets(others, 2);
    assert.deepEqual(others, ["one", "two"]);
    assert.deepEqual(own, ["two"]);
  });

  test("members get the original event with all its arguments", async () => {
    const room = freshRoom();
    const [sender, member] = await pair();
    const got = [];
    member.on("move", (...args) => got.push(args));
    await join(member, room);
    const args = [1, "zwei ✓ \u2028", null, true, [1.5, { deep: [] }], {}];
    await publish(sender, room, "move", args);
    await publish(sender, room, "move", []);
    await gets(got, 2);
    assert.deepEqual(got, [args, []]);
  });

  test("offsets rise within one epoch and history holds what was acknowledged", async () => {
    const room = freshRoom();
    const [sender, member] = await pair();
    const answers = [];
    for (const n of range(0, 10)) answers.push(await publish(sender, room, "m", [n]));
    for (const [a, b] of answers.slice(1).map((answer, i) => [answers[i], answer])) {
      assert.ok(Number.isSafeInteger(b.offset) && b.offset > a.offset, `${a.offset} then ${b.offset}`);
      assert.equal(typeof b.epoch, "string");
      assert.equal(b.epoch, a.epoch);
    }
    const joined = await join(member, room, { history: { last: 4 } });
    assert.equal(joined.room, room);
    assert.equal(joined.epoch, answers[9].epoch);
    assert.equal(joined.offset, answers[9].offset);
    assert.deepEqual(joined.history.map((item) => item.args), [[6], [7], [8], [9]]);
    assert.deepEqual(joined.history.map((item) => item.offset), answers.slice(6).map((answer) => answer.offset));
    for (const item of joined.history) {
      assert.equal(item.event, "m");
      assert.equal(item.epoch, joined.epoch);
      assert.ok(Math.abs(item.time_ms - Date.now()) < 60_000, `time_ms ${item.time_ms}`);
    }
    assert.equal("recovered" in joined, false, "recovered is present exactly when since was given");
  });

  test("since is exclusive, wants its epoch, and says whether nothing is missing", async () => {
    const room = freshRoom();
    const [sender, member] = await pair();
    const answers = [];
    for (const n of range(0, 6)) answers.push(await publish(sender, room, "m", [n]));
    const { epoch, offset } = answers[3];
    const joined = await join(member, room, { history: { since: offset, epoch } });
    assert.equal(joined.recovered, true);
    assert.deepEqual(joined.history.map((item) => item.args), [[4], [5]]);
    await refused(member, "room:join", { room, history: { since: offset } }, "bad_request");
    const other = await join(member, room, { history: { since: offset, epoch: "another" } });
    assert.equal(other.recovered, false);
    assert.deepEqual(other.history.map((item) => item.args), range(0, 6).map((n) => [n]));
  });

  test("an empty room answers a cursor that works", async () => {
    const room = freshRoom();
    const [sender, member] = await pair();
    const empty = await join(member, room, { history: { last: 10 } });
    assert.deepEqual(empty.history, []);
    member.disconnect();
    await publish(sender, room, "m", ["first"]);
    const back = await connect(nodes().at(-1).url, parser);
    const live = received(back, "m");
    const again = await join(back, room, { history: { since: empty.offset, epoch: empty.epoch } });
    assert.equal(again.recovered, true);
    // Where the node follows the room already, the message may still be on its way and then comes live.
    await until(() => again.history.length + live.length > 0, 5_000, () => "the first message");
    assert.deepEqual([...again.history.map((item) => item.args[0]), ...live], ["first"]);
  });

  test("room:history pages in both directions and says when nothing is left", async () => {
    const room = freshRoom();
    const [sender, reader] = await pair();
    for (const n of range(0, 10)) await publish(sender, room, "m", [n]);
    const args = (answer) => answer.items.map((item) => item.args[0]);
    const all = await done(reader, "room:history", { room });
    assert.deepEqual(args(all), range(0, 10));
    assert.equal(all.complete, true);
    const page = await done(reader, "room:history", { room, since: all.items[1].offset, epoch: all.epoch, limit: 3 });
    assert.deepEqual(args(page), [2, 3, 4]);
    assert.equal(page.complete, false);
    const newest = await done(reader, "room:history", { room, limit: 3, reverse: true });
    assert.deepEqual(args(newest), [9, 8, 7]);
    assert.equal(newest.complete, false);
    const since = { since: all.items[2].offset, epoch: all.epoch };
    const rest = await done(reader, "room:history", { room, ...since, reverse: true });
    assert.deepEqual(args(rest), [1, 0]);
    assert.equal(rest.complete, true);
  });

  test("leaving stops delivery, and leaving a room not joined is fine", async () => {
    const room = freshRoom();
    const [sender, member] = await pair();
    const list = received(member, "m");
    await join(member, room);
    await publish(sender, room, "m", [1]);
    await gets(list, 1);
    await done(member, "room:leave", { room });
    await publish(sender, room, "m", [2]);
    await done(member, "room:leave", { room });
    await gets(list, 1);
  });

  test("joining twice is one membership", async () => {
    const room = freshRoom();
    const [sender, member] = await pair();
    const list = received(member, "m");
    await join(member, room);
    await join(member, room, { history: { last: 1 } });
    await publish(sender, room, "m", ["once"]);
    await gets(list, 1);
  });

  test("replayed events come as the original events, after the answer and before anything live", async () => {
    const room = freshRoom();
    const [sender, member] = await pair();
    for (const n of range(0, 5)) await publish(sender, room, "m", [n]);
    const list = received(member, "m");
    const joined = await join(member, room, { history: { last: 3 }, replay: "events" });
    assert.equal(joined.replayed, 3);
    assert.equal("history" in joined, false);
    await publish(sender, room, "m", [5]);
    await gets(list, 4);
    assert.deepEqual(list, [2, 3, 4, 5]);
  });

  test("a volatile publish is delivered and kept nowhere", async () => {
    const room = freshRoom();
    const [sender, member] = await pair();
    const list = received(member, "m");
    await join(member, room);
    const answer = await publish(sender, room, "m", ["gone"], { volatile: true });
    assert.equal("offset" in answer, false);
    await gets(list, 1);
    const history = await done(member, "room:history", { room });
    assert.deepEqual(history.items, []);
    await refused(sender, "room:publish", { room, event: "m", args: [], volatile: true, id: "x" }, "bad_request");
  });

  test("a repeated id gets the first answer and delivers nothing", async () => {
    const room = freshRoom();
    const [sender, member] = await pair();
    const list = received(member, "m");
    await join(member, room);
    const first = await publish(sender, room, "m", ["once"], { id: "order-17" });
    const again = await publish(sender, room, "m", ["once"], { id: "order-17" });
    const fromOther = await publish(member, room, "m", ["once"], { id: "order-17" });
    assert.equal(again.offset, first.offset);
    assert.equal(fromOther.offset, first.offset);
    await gets(list, 1);
    await publish(sender, freshRoom(), "m", ["elsewhere"], { id: "order-17" });
  });

  test("a publish without a room reaches everyone in the namespace and nobody else", async () => {
    const namespace = `/all-${nodes().length}`;
    const sender = await connect(nodes()[0].url, parser, namespace);
    const members = await Promise.all(nodes().map((node) => connect(node.url, parser, namespace)));
    const [own, other] = [received(sender, "news"), received(await connect(nodes()[0].url, parser), "news")];
    const lists = members.map((member) => received(member, "news"));
    const answer = await done(sender, "room:publish", { event: "news", args: ["hello"] });
    assert.equal("offset" in answer, false);
    for (const list of lists) await gets(list, 1);
    assert.deepEqual([own, other], [[], []]);
  });

  test("what is not a request is refused and the connection lives on", async () => {
    const [socket] = await pair();
    const room = freshRoom();
    for (const bad of [undefined, null, 1, "room", [], {}, { room: "" }, { room: 7 }, { room: "a\u0001b" }]) {
      await refused(socket, "room:join", bad, "bad_request");
    }
    await refused(socket, "room:join", { room: "x".repeat(257) }, "bad_request");
    await refused(socket, "room:join", { room, history: { last: -1 } }, "bad_request");
    await refused(socket, "room:join", { room, history: { last: 1.5 } }, "bad_request");
    for (const event of ["connect", "disconnect", "connect_error", "room:joined", "auth:expired", "", "a\u0000"]) {
      await refused(socket, "room:publish", { room, event, args: [] }, "bad_request");
    }
    await refused(socket, "room:publish", { room, event: "m", args: "not a list" }, "bad_request");
    await refused(socket, "room:publish", { room, args: [] }, "bad_request");
    await join(socket, "x".repeat(256));
    await join(socket, room);
  });

  test("two arguments are not a request", async () => {
    const [socket] = await pair();
    const answer = await socket.timeout(5_000).emitWithAck("room:join", { room: freshRoom() }, "more");
    assert.ok(answer.ok === true || answer.code === "bad_request", JSON.stringify(answer));
    assert.equal((await ask(socket, "room:join", { room: freshRoom() })).ok, true);
  });
};

for (const [name, parser] of Object.entries(PARSERS)) onOneAndThree(`rooms, ${name}`, contract(parser));
