// What a program does with sockets wherever in the cluster they are: node/examples/verbs.rs on three processes.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, afterEach, before, describe, test } from "node:test";
import { ask, closeAll, connect, freshRoom, gets, range, received } from "./lib/client.mjs";
import { example, startCluster } from "./lib/cluster.mjs";
import { pause, until } from "./lib/wait.mjs";

const WAIT_MS = 3_000;
/** How long the example waits for clients and for nodes, and what it may take beyond that on a busy machine. */
const PATIENCE_MS = 500;
const NODES_PATIENCE_MS = 2_000;
const SLACK_MS = 1_500;

const told = (socket, event) => once(socket, event, { signal: AbortSignal.timeout(WAIT_MS) });
/** All arguments of an acknowledgement. */
const answered = (socket, event, ...args) => new Promise((done) => socket.emit(event, ...args, (...all) => done(all)));
const ids = (list) => list.map((socket) => socket.id).sort();
const dontWait = { transports: ["websocket"] };

describe("sockets of three nodes", () => {
  let cluster;
  before(async () => {
    cluster = await startCluster(3, ["--shards", "2"], {}, example("verbs"));
  });
  afterEach(closeAll);
  after(async () => {
    await cluster?.stop();
  });
  const node = (index) => cluster.nodes[index % 3];

  /** A socket on each of these nodes, in these rooms, with the list of the news it hears. */
  async function people(...places) {
    return Promise.all(places.map(async ([at, ...rooms]) => {
      const socket = await connect(node(at).url, dontWait);
      socket.news = received(socket, "news");
      for (const room of rooms) assert.equal((await ask(socket, "join", room)).ok, true);
      return socket;
    }));
  }

  /** Waits until every node can reach whoever is in the namespace. */
  const heard = async (all, ...counts) => {
    await Promise.all(all.map((socket, index) => gets(socket.news, counts[index])));
  };

  test("a socket that is in several of the rooms hears it once, whoever owns them", async () => {
    const rooms = range(0, 9).map(freshRoom);
    const all = await people([0], [1, ...rooms], [2, rooms[0], rooms[8]], [0, rooms[4], rooms[5]], [1], [2, rooms[3]]);
    for (const _ of range(0, 10)) all[0].emit("to many", [rooms, []]);
    await heard(all, 0, 10, 10, 10, 0, 10);
  });

  test("whoever is excepted, by room or by id, hears nothing on any node", async () => {
    const [a, b, not] = [freshRoom(), freshRoom(), freshRoom()];
    const all = await people([0], [1, a, b], [1, a, b, not], [2, b], [2, b, not], [0, a], [0, a, not]);
    all[0].emit("to many", [[a, b], [not]]);
    await heard(all, 0, 1, 0, 1, 0, 1, 0);
    all[0].emit("to many", [[a, b], [all[1].id, not]]);
    await heard(all, 0, 1, 0, 2, 0, 2, 0);
    all[0].emit("to many", [[a], [b]]);
    await heard(all, 0, 1, 0, 2, 0, 3, 1);
  });

  test("one socket among rooms is reached once, with or without them", async () => {
    const room = freshRoom();
    const all = await people([0], [1], [2, room]);
    all[0].emit("to many", [[room, all[1].id, all[2].id], []]);
    await heard(all, 0, 1, 1);
  });

  test("sockets are told about: id, user, rooms, page by page", async () => {
    const all = await people([0, "red"], [1, "red"], [2, "red", "blue"], [0]);
    const ann = await connect(node(1).url, { ...dontWait, auth: { user: "ann" } });
    assert.equal((await ask(ann, "join", "red")).ok, true);
    const inRed = [all[0], all[1], all[2], ann];
    const answer = await ask(all[3], "who is in red", null);
    assert.equal(answer.ok, true);
    assert.deepEqual([answer.count, answer.partial, answer.next, answer.silent], [4, false, undefined, undefined]);
    assert.deepEqual(answer.sockets.map((socket) => socket.id), ids(inRed));
    const sorted = (socket) => ({ ...socket, rooms: socket.rooms.toSorted() });
    const byId = new Map(answer.sockets.map((socket) => [socket.id, sorted(socket)]));
    assert.deepEqual(byId.get(ann.id), { id: ann.id, user: "ann", rooms: ["announcements", "red", "user:ann"] });
    assert.deepEqual(byId.get(all[2].id), { id: all[2].id, rooms: ["announcements", "blue", "red"] });
    const first = await ask(all[3], "next in red", "");
    const second = await ask(all[3], "next in red", first.next);
    assert.deepEqual([...first.sockets, ...second.sockets].map((socket) => socket.id), ids(inRed));
    assert.deepEqual([first.count, second.count, second.next], [4, 4, undefined]);
    const one = await ask(all[3], "who else", all[1].id);
    assert.deepEqual(one.sockets.map((socket) => socket.id), [all[1].id]);
    const user = await ask(all[3], "who else", "user:ann");
    assert.deepEqual(user.sockets.map((socket) => socket.id), [ann.id]);
  });

  test("sockets are taken into rooms and out of them, and the answer says when it is so", async () => {
    const room = freshRoom();
    const all = await people([0, "red"], [1, "red"], [2, "red"], [1]);
    assert.deepEqual(await ask(all[3], "red joins", room), { ok: true, sockets: 3, partial: false });
    all[3].emit("to many", [[room], []]);
    await heard(all, 1, 1, 1, 0);
    assert.deepEqual(await ask(all[3], "red leaves", room), { ok: true, sockets: 3, partial: false });
    all[3].emit("to many", [[room], []]);
    await heard(all, 1, 1, 1, 0);
  });

  test("sockets are sent out of their namespace, or cut off", async () => {
    const all = await people([0, "red"], [1, "red"], [2, "red"], [1]);
    const ends = all.slice(1, 3).map((socket) => told(socket, "disconnect"));
    assert.deepEqual(await ask(all[3], "send red away", all[0].id), { ok: true, sockets: 2, partial: false });
    assert.deepEqual((await Promise.all(ends)).map(([why]) => why), ["io server disconnect", "io server disconnect"]);
    assert.equal(all[0].connected, true, "it was excepted");
    const end = told(all[0], "disconnect");
    assert.deepEqual(await ask(all[3], "cut off", all[0].id), { ok: true, sockets: 1, partial: false });
    assert.deepEqual((await end)[0], "transport close");
  });

  test("many are asked on all nodes: what they say, how many there were, who was silent", async () => {
    const all = await people([0], [0, "red"], [1, "red"], [2, "red"], [2, "red"], [1]);
    for (const index of [1, 2, 3]) all[index].on("question", (text, answer) => answer(`${index}:${text}`, Buffer.from([index])));
    const asked = received(all[5], "question");
    const [answers, counts] = await answered(all[0], "ask the others", "?");
    assert.deepEqual(answers.map(([text]) => text).sort(), ["1:?", "2:?", "3:?"]);
    assert.deepEqual(counts, [4, 1, []]);
    assert.deepEqual(asked, []);
  });

  test("a program speaks from any thread, without a socket, to all nodes", async () => {
    const all = await people([0, "red"], [1, "red"], [2, "red"], [1]);
    const [offset, count] = await answered(all[3], "from a thread", "news from nobody");
    assert.ok(offset > 0, `no offset: ${offset}`);
    assert.equal(count, 3);
    await heard(all, 1, 1, 1, 0);
    const ticks = received(all[2], "tick");
    assert.equal((await ask(all[2], "join", "clock")).ok, true);
    await until(() => ticks.length >= 6, 10_000, () => "what each of three nodes says every half second");
  });

  test("a client's address is that of its connection, or what a trusted proxy says", async () => {
    const extraHeaders = { "x-forwarded-for": "203.0.113.9" };
    const inside = await connect(node(0).url, { ...dontWait, extraHeaders }, "/inside");
    inside.disconnect();
    const proxied = await startCluster(1, [], { STARLING_SERVER__TRUSTED_PROXIES: "127.0.0.0/8" }, example("verbs"));
    try {
      const { url } = proxied.nodes[0];
      const refused = await connect(url, { ...dontWait, extraHeaders }, "/inside").then(() => assert.fail("let in"), (why) => why);
      assert.deepEqual(refused.data, { code: "outside" });
      (await connect(url, dontWait, "/inside")).disconnect();
    } finally {
      await proxied.stop();
    }
  });

  test("a node that does not answer is named in time, and is heard again later", async () => {
    const all = await people([0, "red"], [1, "red"], [2, "red"], [1]);
    process.kill(node(2).pid, "SIGSTOP");
    try {
      const start = performance.now();
      const answer = await ask(all[3], "who is in red", null);
      assert.ok(performance.now() - start < NODES_PATIENCE_MS + SLACK_MS, `${performance.now() - start} ms`);
      assert.deepEqual([answer.partial, answer.silent], [true, ["gw-2"]]);
      assert.deepEqual(answer.sockets.map((socket) => socket.id), ids([all[0], all[1]]));
      const joined = await ask(all[3], "red leaves", "x");
      assert.deepEqual(joined, { ok: true, sockets: 2, partial: true, silent: ["gw-2"] });
    } finally {
      process.kill(node(2).pid, "SIGCONT");
    }
    await until(async () => (await ask(all[3], "who is in red", null)).count === 3, 20_000, () => "the node to be heard");
  });

  test("a node that dies while its clients are asked is named, and nobody waits longer than for silence", async () => {
    const all = await people([0], [0, "red"], [1, "red"], [2, "red"], [2, "red"]);
    for (const index of [1, 2, 3]) all[index].on("question", (text, answer) => answer(`${index}:${text}`));
    const silent = told(all[4], "question");
    const start = performance.now();
    const survey = answered(all[0], "ask the others", "?");
    await silent;
    await pause(100);
    cluster.nodes[2].child.kill("SIGKILL");
    const [answers, [asked, missing, unheard]] = await survey;
    assert.ok(performance.now() - start < PATIENCE_MS + 250 + SLACK_MS, `${performance.now() - start} ms`);
    assert.deepEqual(answers.flat().sort(), ["1:?", "2:?", "3:?"], "what was said before is known");
    assert.deepEqual([asked, missing, unheard], [4, 1, ["gw-2"]]);
    await until(async () => !(await ask(all[0], "who is in red", null)).partial, 20_000, () => "the dead node to be known");
    await cluster.nodes[2].exited;
    await cluster.nodes[2].start();
  });
});
