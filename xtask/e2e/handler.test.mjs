// Every verb of an embedded program, as the official client sees it: node/examples/verbs.rs and chat.rs.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import { io } from "socket.io-client";
import { MODES, ask, closeAll, connect, gets, join, publish, range, received, refused } from "./lib/client.mjs";
import { example, startCluster } from "./lib/cluster.mjs";
import { until } from "./lib/wait.mjs";

/** Declares tests against one process of an example, with as many threads for clients. */
function onExample(name, shards, body) {
  describe(`${name}.rs with ${shards} shards`, () => {
    let cluster;
    before(async () => {
      cluster = await startCluster(1, ["--shards", String(shards)], {}, example(name));
    });
    after(async () => {
      closeAll();
      await cluster?.stop();
    });
    body(() => cluster.nodes[0]);
  });
}

// A panic of a debug build reads all of its debug information first.
const WAIT_MS = 10_000;
const told = (socket, event) => once(socket, event, { signal: AbortSignal.timeout(WAIT_MS) });
const rejection = (url, options, namespace) => connect(url, options, namespace).then(() => assert.fail("let in"), (why) => why);

/** Sockets in `/`, each with the list of the news it hears, and in the rooms of `rooms[i]` as all of this node knows. */
async function audience(node, ...rooms) {
  const people = await Promise.all(rooms.map(() => connect(node.url, { transports: ["websocket"] })));
  for (const [index, socket] of people.entries()) {
    socket.news = received(socket, "news");
    for (const room of rooms[index]) await ask(socket, "join", room);
    await ask(socket, "rooms");
  }
  return people;
}

/** Waits until everybody has heard what was said, in this order, and nobody anything else. */
async function heard(people, ...expected) {
  await Promise.all(people.map((socket, index) => gets(socket.news, expected[index].length)));
  assert.deepEqual(people.map((socket) => socket.news), expected);
}

for (const shards of [1, 2]) {
  onExample("verbs", shards, (node) => {
    test("emit reaches the socket itself, in every mode, and says who it is", async () => {
      for (const options of Object.values(MODES)) {
        const socket = await connect(node().url, { ...options, auth: { user: "ann" } });
        const back = told(socket, "back");
        socket.emit("back", 1, { two: [3] }, Buffer.from("four"));
        assert.deepEqual(await back, [1, { two: [3] }, Buffer.from("four")]);
        socket.disconnect();
      }
    });

    test("what is said on connect comes first", async () => {
      const socket = io(node().url, { forceNew: true, auth: { user: "ann" } });
      assert.deepEqual(await told(socket, "hello"), [socket.id, "ann"]);
      socket.disconnect();
    });

    test("who comes is known by a cookie of the first request, in every mode", async () => {
      for (const options of Object.values(MODES)) {
        const extraHeaders = { cookie: "theme=dark; user=dora" };
        const socket = io(node().url, { ...options, forceNew: true, extraHeaders });
        assert.deepEqual(await told(socket, "hello"), [socket.id, "dora"]);
        const member = socket.io.socket("/members", {});
        assert.deepEqual((await told(member, "hello"))[1], "dora", "the second namespace asks again");
        socket.io._close();
      }
    });

    test("broadcast reaches everybody, or everybody else", async () => {
      const people = await audience(node(), [], [], []);
      people[0].emit("everybody", "one");
      await heard(people, ["one"], ["one"], ["one"]);
      people[0].emit("everybody else", "two");
      await heard(people, ["one"], ["one", "two"], ["one", "two"]);
      people.forEach((socket) => socket.disconnect());
    });

    test("a room is reached with its speaker and without", async () => {
      const people = await audience(node(), ["red"], ["red"], ["blue"]);
      people[0].emit("in red", 1);
      await heard(people, [1], [1], []);
      people[0].emit("to red", 2);
      await heard(people, [1], [1, 2], []);
      people.forEach((socket) => socket.disconnect());
    });

    test("who is in several of the rooms is reached once", async () => {
      const people = await audience(node(), [], ["red"], ["blue"], ["red", "blue"]);
      for (const n of range(0, 20)) people[0].emit("to red or blue", n);
      await heard(people, [], range(0, 20), range(0, 20), range(0, 20));
      people.forEach((socket) => socket.disconnect());
    });

    test("who is excepted is left out, as a member of a room or of a namespace", async () => {
      const people = await audience(node(), [], ["red"], ["red", "blue"], []);
      people[0].emit("to red but blue", 1);
      await heard(people, [], [1], [], []);
      people[0].emit("all but red", 2);
      await heard(people, [], [1], [], [2]);
      people.forEach((socket) => socket.disconnect());
    });

    test("one socket is reached by its id, alone or next to a room", async () => {
      const people = await audience(node(), [], [], ["red"], []);
      people[0].emit("to one", people[1].id);
      await heard(people, [], [people[1].id], [], []);
      people[0].emit("to one or red", people[2].id);
      await heard(people, [], [people[1].id], [people[2].id], []);
      people[0].emit("to one or red", people[3].id);
      await heard(people, [], [people[1].id], [people[2].id, people[3].id], [people[3].id]);
      people.forEach((socket) => socket.disconnect());
    });

    test("another namespace is reached, also by a connection that is in both", async () => {
      const here = await connect(node().url);
      const there = here.io.socket("/other");
      await told(there, "connect");
      const [hears, other] = [received(there, "news"), await connect(node().url, {}, "/other")];
      await Promise.all([ask(there, "rooms"), ask(other, "rooms")]);
      const outside = received(here, "news");
      const also = received(other, "news");
      here.emit("to another namespace", "hi");
      await Promise.all([gets(hears, 1), gets(also, 1)]);
      assert.deepEqual(outside, []);
      for (const socket of [here, there, other]) socket.disconnect();
    });

    test("a client is asked: its answer, its silence, its end", async () => {
      const socket = await connect(node().url);
      socket.once("question", (text, answer) => answer(`you said ${text}`));
      assert.equal(await ask(socket, "ask me", "x"), "you said x");
      assert.equal(await ask(socket, "ask me", "y"), "no answer in time");
      socket.disconnect();
    });

    test("many are asked at once: what they say is collected, who is silent is counted", async () => {
      const people = await audience(node(), [], ["red"], ["red"], ["red"], []);
      for (const index of [1, 2]) people[index].on("question", (text, answer) => answer(`${index}:${text}`));
      const asked = received(people[4], "question");
      const [answers, counts] = await new Promise((done) => people[0].emit("ask the others", "?", (...all) => done(all)));
      assert.deepEqual(answers.flat().sort(), ["1:?", "2:?"]);
      assert.deepEqual(counts, [3, 1, []]);
      assert.deepEqual(asked, []);
      people.forEach((socket) => socket.disconnect());
    });

    test("nobody to ask is an answer too", async () => {
      const socket = await connect(node().url);
      const all = await new Promise((done) => socket.emit("ask the others", "?", (...answer) => done(answer)));
      assert.deepEqual(all, [[], [0, 0, []]]);
      socket.disconnect();
    });

    test("who may not enter is told why and may go elsewhere on the same connection", async () => {
      const banned = await rejection(node().url, { auth: { user: "mallory" } });
      assert.deepEqual([banned.message, banned.data], ["you know why", { code: "banned" }]);
      const anonymous = await rejection(node().url, {}, "/members");
      assert.deepEqual(anonymous.data, { code: "unauthorized" });
      const unknown = await rejection(node().url, {}, "/nowhere");
      assert.deepEqual([unknown.message, unknown.data], ["Invalid namespace", { code: "bad_request" }]);
      const member = await connect(node().url, { auth: { user: "ann" } }, "/members");
      member.disconnect();
    });

    test("a program decides who joins and who publishes", async () => {
      const [member, outsider] = await audience(node(), [], []);
      await refused(member, "room:join", { room: "secret" }, "forbidden");
      await refused(outsider, "room:publish", { room: "club", event: "news", args: [1] }, "not_member");
      await join(member, "club");
      await publish(member, "club", "news", [2], { echo: true });
      await heard([member, outsider], [2], []);
      [member, outsider].forEach((socket) => socket.disconnect());
    });

    test("a program takes sockets into rooms and out of them", async () => {
      const [socket, other] = await audience(node(), ["red"], []);
      assert.deepEqual(await ask(socket, "rooms"), ["announcements", "red"]);
      other.emit("to red", 1);
      await heard([socket, other], [1], []);
      socket.emit("leave", "red");
      assert.deepEqual(await ask(socket, "rooms"), ["announcements"]);
      other.emit("to red", 2);
      await ask(other, "rooms");
      await heard([socket, other], [1], []);
      [socket, other].forEach((one) => one.disconnect());
    });

    test("who comes later is shown what was said, as the events it was, before anything new", async () => {
      const [socket] = await audience(node(), []);
      const { offset } = await ask(socket, "announce", "first");
      assert.ok(offset > 0);
      await ask(socket, "announce", "second");
      const late = io(node().url, { forceNew: true });
      const announced = received(late, "announced");
      await gets(announced, 2);
      assert.deepEqual(announced, ["first", "second"]);
      [socket, late].forEach((one) => one.disconnect());
    });

    test("the outcome of a publish is told to the program; a repeat with the same id has no effect", async () => {
      const people = await audience(node(), [], ["red"]);
      const offset = await ask(people[0], "publish and tell", "x");
      assert.ok(offset > 0, String(offset));
      const [first, again] = [await ask(people[0], "once", "id-1"), await ask(people[0], "once", "id-1")];
      assert.deepEqual(first, again);
      await heard(people, [], ["x", "id-1"]);
      const events = await ask(people[0], "history", null);
      assert.deepEqual(events.slice(-2), ["news", "news"]);
      people.forEach((socket) => socket.disconnect());
    });

    test("a volatile event reaches a client that keeps up", async () => {
      const socket = await connect(node().url, { transports: ["websocket"] });
      const back = told(socket, "back");
      socket.emit("back if idle", "now");
      assert.deepEqual(await back, ["now"]);
      socket.disconnect();
    });

    test("an answer that comes later, from another thread, is an answer", async () => {
      const socket = await connect(node().url);
      const start = performance.now();
      assert.equal(await ask(socket, "later", "done"), "done");
      assert.ok(performance.now() - start > 400);
      socket.disconnect();
    });

    test("a socket that is sent away, and one whose connection is closed, know it; the others do too", async () => {
      const [watcher, dismissed, cut, left] = await audience(node(), ["red"], ["red"], ["red"], ["red"]);
      const gone = [];
      watcher.on("gone", (id, why) => gone.push([id, why]));
      const ids = [dismissed.id, cut.id, left.id];
      const ends = [told(dismissed, "disconnect"), told(cut, "disconnect")];
      dismissed.emit("leave me");
      assert.equal((await ends[0])[0], "io server disconnect");
      await until(() => gone.length === 1, WAIT_MS, () => "one end");
      cut.emit("hang up");
      assert.equal((await ends[1])[0], "transport close");
      await until(() => gone.length === 2, WAIT_MS, () => "two ends");
      left.disconnect();
      await until(() => gone.length === 3, WAIT_MS, () => "three ends");
      assert.deepEqual(gone.map(([id]) => id), ids);
      assert.deepEqual(gone.map(([, why]) => why), ["Dismissed", "Closed(ServerClose)", "Left"]);
      watcher.disconnect();
    });

    test("a thousand events are handled in the order in which they were sent", async () => {
      for (const options of Object.values(MODES)) {
        const socket = await connect(node().url, options);
        const back = received(socket, "back");
        for (const n of range(0, 1_000)) socket.emit("back", n);
        await until(() => back.length === 1_000, 8_000, () => `1,000 answers, got ${back.length}`);
        assert.deepEqual(back, range(0, 1_000));
        socket.disconnect();
      }
    });

    test("a handler that panics ends its own connection, is counted, and harms nobody", async () => {
      const before = await node().metric("starling_panics_total");
      const [canary, clumsy] = await audience(node(), ["red"], []);
      const end = told(clumsy, "disconnect");
      clumsy.emit("panic");
      assert.equal((await end)[0], "transport close");
      const other = await connect(node().url);
      other.emit("to red", "still here");
      await heard([canary], ["still here"]);
      assert.equal((await node().metric("starling_panics_total")) - before, 1);
      [canary, other].forEach((socket) => socket.disconnect());
    });
  });
}

describe("verbs.rs on three nodes", () => {
  let cluster;
  before(async () => {
    cluster = await startCluster(3, [], {}, example("verbs"));
  });
  after(async () => {
    closeAll();
    await cluster?.stop();
  });

  test("one socket is reached by its id wherever it is, in order, and next to a room once", async () => {
    const people = await Promise.all(cluster.nodes.map((node) => connect(node.url, { transports: ["websocket"] })));
    for (const socket of people) socket.news = received(socket, "news");
    await ask(people[2], "join", "red");
    const list = [];
    people[1].on("news", (id, n) => list.push(n));
    for (const n of range(0, 50)) people[0].emit("to one", people[1].id, n);
    await gets(list, 50);
    assert.deepEqual(list, range(0, 50));
    people[0].emit("to one or red", people[2].id);
    await gets(people[2].news, 1);
    assert.deepEqual(people[0].news, []);
    people[0].emit("to one or red", people[1].id);
    await Promise.all([gets(people[1].news, 51), gets(people[2].news, 2)]);
  });
});

onExample("chat", 2, (node) => {
  const named = (name) => connect(node().url, { auth: { name }, transports: ["websocket"] });

  test("people come, talk, whisper, vote and go", async () => {
    assert.deepEqual((await rejection(node().url, {})).data, { code: "unauthorized" });
    const ann = await named("ann");
    const [came, said, whispered, went] = ["came", "said", "whispered", "went"].map((event) => {
      const list = [];
      ann.on(event, (...args) => list.push(args));
      return list;
    });
    const ben = await named("ben");
    await until(() => came.length === 1, WAIT_MS, () => "ben to come");
    assert.equal((await ask(ben, "say", "hello")).ok, true);
    await until(() => said.length === 1, WAIT_MS, () => "ben's hello");
    assert.deepEqual(said[0], ["ben", ["hello"]]);
    ben.emit("whisper", ann.id, "psst");
    await until(() => whispered.length === 1, WAIT_MS, () => "ben's whisper");
    assert.deepEqual(whispered[0], ["ben", [ann.id, "psst"]]);
    ann.on("vote", (who, [question], answer) => answer(`${who} asks ${question}`));
    const votes = await new Promise((done) => ben.emit("poll", "tea?", (...all) => done(all)));
    assert.deepEqual(votes, [[["ben asks tea?"]], 0]);
    const cleo = io(node().url, { forceNew: true, auth: { name: "cleo" } });
    assert.deepEqual(await told(cleo, "said"), ["ben", ["hello"]]);
    ben.disconnect();
    await until(() => went.length === 1, WAIT_MS, () => "ben to go");
    cleo.disconnect();
  });
});

test("an address whose clients are refused too often is refused for a while, and who is in stays in", async () => {
  const cluster = await startCluster(1, [], { STARLING_LIMITS__FAILED_AUTH_PER_MINUTE: "3" }, example("verbs"));
  const { url } = cluster.nodes[0];
  try {
    const member = await connect(url, { auth: { user: "ann" }, transports: ["websocket"] });
    const codes = [];
    for (let n = 0; n < 4; n += 1) codes.push((await rejection(url, { auth: { user: "mallory" } })).data?.code);
    assert.deepEqual(codes, ["banned", "banned", "banned", "banned"]);
    const answer = await fetch(`${url}/socket.io/?EIO=4&transport=polling`);
    assert.equal(answer.status, 429);
    const elsewhere = member.io.socket("/members", {});
    const [why] = await once(elsewhere, "connect_error", { signal: AbortSignal.timeout(WAIT_MS) });
    assert.deepEqual(why.data, { code: "rate_limited" });
    assert.match(await answer.text(), /refused too often/);
    assert.notEqual(await ask(member, "rooms"), undefined, "a member goes on");
  } finally {
    closeAll();
    await cluster.stop();
  }
});
