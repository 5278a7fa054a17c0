// Who is in a room, as every member sees it: a list and the notices after it, which add up.

import assert from "node:assert/strict";
import { test } from "node:test";
import { PARSERS, ask, connect, done, freshRoom, gets, join, publish, range, received, refused } from "./lib/client.mjs";
import { startCluster } from "./lib/cluster.mjs";
import { onOneAndThree } from "./lib/suite.mjs";
import { pause, until } from "./lib/wait.mjs";

const present = (socket, room, more = {}) => join(socket, room, { presence: true, ...more });
const ids = (members) => members.map((member) => member.id).sort();
const sockets = (...all) => all.map((socket) => socket.id).sort();

/** Everything about presence and messages that a socket is told, in order. */
function told(socket) {
  const list = [];
  socket.on("room:joined", ({ room, member }) => list.push(`+${room} ${member.id}`));
  socket.on("room:left", ({ room, member }) => list.push(`-${room} ${member.id}`));
  socket.on("m", (value) => list.push(value));
  return list;
}

const contract = (parser) => (nodes) => {
  const on = (index) => connect(nodes().at(index).url, parser);

  test("members see who is there, who comes and who leaves, once each", async () => {
    const room = freshRoom();
    const [a, b, c] = [await on(0), await on(-1), await on(0)];
    const [seenByA, seenByB] = [told(a), told(b)];
    assert.deepEqual(ids((await present(a, room)).members), sockets(a));
    assert.deepEqual(ids((await present(b, room)).members), sockets(a, b));
    assert.deepEqual(ids((await present(c, room)).members), sockets(a, b, c));
    await gets(seenByA, 2);
    assert.deepEqual(seenByA, [`+${room} ${b.id}`, `+${room} ${c.id}`]);
    const lines = [b, c].map((socket) => `-${room} ${socket.id}`).sort();
    assert.deepEqual(seenByB, [`+${room} ${c.id}`], "nobody is told of itself");
    await done(c, "room:leave", { room });
    b.disconnect();
    await gets(seenByA, 4);
    assert.deepEqual(seenByA.slice(2).sort(), lines);
  });

  test("a member is shown by its id", async () => {
    const room = freshRoom();
    const [a, b] = [await on(0), await on(-1)];
    const joined = received(a, "room:joined");
    await present(a, room);
    const { members } = await present(b, room);
    assert.deepEqual(members.find((member) => member.id === a.id), { id: a.id });
    await gets(joined, 1);
    assert.deepEqual(joined, [{ room, member: { id: b.id } }]);
  });

  test("members without presence are not listed, and are told nothing", async () => {
    const room = freshRoom();
    const [a, b, c] = [await on(0), await on(-1), await on(0)];
    const quiet = told(b);
    const plain = await join(b, room);
    assert.equal("members" in plain, false);
    assert.deepEqual(ids((await present(a, room)).members), sockets(a));
    await present(c, room);
    await done(c, "room:leave", { room });
    await publish(a, room, "m", ["after"]);
    await gets(quiet, 1);
    assert.deepEqual(quiet, ["after"]);
  });

  test("joining again tells nobody; a plain member may show itself later", async () => {
    const room = freshRoom();
    const [a, b] = [await on(0), await on(-1)];
    const seen = told(a);
    await present(a, room);
    await join(b, room);
    await present(b, room);
    await present(b, room, { history: { last: 5 } });
    await join(b, room);
    assert.deepEqual(ids((await present(b, room)).members), sockets(a, b));
    await publish(b, room, "m", ["end"]);
    await gets(seen, 2);
    assert.deepEqual(seen, [`+${room} ${b.id}`, "end"]);
  });

  test("leaving the namespace and losing the connection are one leaving each", async () => {
    const room = freshRoom();
    const [a, b, c] = [await on(0), await on(-1), await on(-1)];
    const seen = told(a);
    await present(a, room);
    await present(b, room);
    await present(c, room);
    await gets(seen, 2);
    const lines = [b, c].map((socket) => `-${room} ${socket.id}`).sort();
    b.disconnect();
    c.io.engine.close();
    await gets(seen, 4);
    assert.deepEqual(seen.slice(2).sort(), lines);
  });

  test("anybody who may can ask who is there", async () => {
    const room = freshRoom();
    const [a, b, stranger] = [await on(0), await on(-1), await on(-1)];
    assert.deepEqual(await done(stranger, "room:presence", { room }), { ok: true, members: [], partial: false });
    await present(a, room);
    await present(b, room);
    const answer = await done(stranger, "room:presence", { room });
    assert.deepEqual(ids(answer.members), sockets(a, b));
    assert.equal(answer.partial, false);
    await refused(stranger, "room:presence", {}, "bad_request");
    await refused(stranger, "room:presence", { room: "" }, "bad_request");
    await refused(stranger, "room:presence", { room: a.id }, "forbidden");
  });

  test("notices are no history", async () => {
    const room = freshRoom();
    const [a, b] = [await on(0), await on(-1)];
    await present(a, room);
    await present(b, room);
    await publish(a, room, "m", [1]);
    const { items } = await done(a, "room:history", { room });
    assert.deepEqual(items.map((item) => item.event), ["m"]);
    await refused(a, "room:publish", { room, event: "room:joined", args: [{}] }, "bad_request");
  });

  test("the list of the answer is what was before the first notice, whoever comes and goes meanwhile", async () => {
    const room = freshRoom();
    const others = await Promise.all(range(0, 6).map((n) => on(n % nodes().length)));
    let stop = false;
    const churn = others.map(async (socket, n) => {
      for (let round = 0; !stop; round += 1) {
        await present(socket, room);
        if (round % 2 === n % 2) await publish(socket, room, "m", [n]);
        await done(socket, "room:leave", { room });
      }
    });
    for (const index of [0, -1, 0, -1]) {
      const late = await on(index);
      const view = new Set();
      let ready = false;
      late.on("room:joined", ({ member }) => {
        assert.ok(ready && !view.has(member.id), `${member.id} came twice`);
        view.add(member.id);
      });
      late.on("room:left", ({ member }) => assert.ok(ready && view.delete(member.id), `${member.id} left without having come`));
      const { members } = await new Promise((resolve) => {
        late.emit("room:join", { room, presence: true }, (answer) => {
          for (const member of answer.members) view.add(member.id);
          ready = true;
          resolve(answer);
        });
      });
      assert.ok(members.some((member) => member.id === late.id));
      await new Promise((wait) => setTimeout(wait, 150));
      const now = await done(late, "room:presence", { room });
      assert.ok(now.members.some((member) => member.id === late.id));
      late.disconnect();
    }
    stop = true;
    await Promise.all(churn);
    // A leave is answered before the room's owner has heard of it.
    const left = async () => (await done(others[0], "room:presence", { room })).members.length === 0;
    await until(left, 5_000, () => "everybody to have left");
  });
};

for (const [name, parser] of Object.entries(PARSERS)) onOneAndThree(`${name}: presence`, contract(parser));

/** Three nodes whose ghosts stay so long, rooms of several owners, and somebody on each node who shows itself in all. */
async function haunted(t, ghost) {
  const cluster = await startCluster(3, [], { STARLING_CLUSTER__PRESENCE_GHOST: ghost });
  t.after(() => cluster.stop());
  const rooms = range(0, 8).map(() => freshRoom());
  const all = await Promise.all(cluster.nodes.map((node) => connect(node.url, { transports: ["websocket"] })));
  const came = received(all[0], "room:joined");
  for (const room of rooms) for (const socket of all) await present(socket, room);
  await gets(came, 2 * rooms.length);
  const notices = all.map((socket) => told(socket));
  return { cluster, rooms, all, notices };
}

test("members of a node that is killed are ghosts for a while, and leave then", async (t) => {
  const { cluster, rooms, all, notices } = await haunted(t, "6s");
  const gone = all[2].id;
  const killedAt = performance.now();
  await cluster.nodes[2].stop("SIGKILL");
  const left = notices[0];
  await until(() => left.length > 0, 25_000, () => "the first to leave");
  assert.ok(performance.now() - killedAt > 6_000, `left ${performance.now() - killedAt} ms after the kill`);
  const everywhere = () => notices[0].length >= rooms.length && notices[1].length >= rooms.length;
  await until(everywhere, 10_000, () => `${rooms.length} notices, got ${notices[0].length} and ${notices[1].length}`);
  const expected = rooms.map((room) => `-${room} ${gone}`).sort();
  assert.deepEqual([left.toSorted(), notices[1].toSorted()], [expected, expected], "once each, and nobody else left");
  // Rooms that the dead node owned have another owner by now, and go on.
  const late = await connect(cluster.nodes[1].url);
  for (const room of rooms) {
    await until(async () => (await ask(late, "room:join", { room, presence: true })).ok, 10_000, () => `a join of ${room}`);
    const { members, partial } = await done(late, "room:presence", { room });
    assert.deepEqual([ids(members), partial], [sockets(all[0], all[1], late), false], room);
  }
});

test("a node that is away for a while and comes back has made nobody leave or come", async (t) => {
  const { cluster, rooms, all, notices } = await haunted(t, "30s");
  process.kill(cluster.nodes[2].pid, "SIGSTOP");
  const alive = async () => (await cluster.nodes[0].cluster()).members.filter(({ state }) => state === "alive").length;
  await until(async () => (await alive()) === 2, 20_000, () => "the node to be missed");
  const someMayBeGone = async () => {
    const answers = await Promise.all(rooms.map((room) => ask(all[0], "room:presence", { room })));
    assert.ok(answers.every(({ ok, members }) => ok && members.length === 3), JSON.stringify(answers));
    return answers.every(({ partial }) => partial);
  };
  await until(someMayBeGone, 10_000, () => "every list to say that some of its members may be gone");
  process.kill(cluster.nodes[2].pid, "SIGCONT");
  await until(async () => (await alive()) === 3, 20_000, () => "the node to be back");
  for (const socket of all) {
    const whole = async () => {
      const answers = await Promise.all(rooms.map((room) => ask(socket, "room:presence", { room })));
      return answers.every(({ ok, members, partial }) => ok && !partial && members.length === 3);
    };
    await until(whole, 20_000, () => "everybody to be listed");
  }
  await pause(2_000);
  assert.deepEqual(notices, [[], [], []]);
});

test("a node that starts again has none of the members it had", async (t) => {
  const { cluster, rooms, all, notices } = await haunted(t, "120s");
  const gone = all[2].id;
  await cluster.nodes[2].stop("SIGKILL");
  await cluster.nodes[2].start();
  const expected = rooms.map((room) => `-${room} ${gone}`).sort();
  await until(() => notices[0].length >= rooms.length, 20_000, () => `${rooms.length} notices, got ${notices[0].length}`);
  assert.deepEqual(notices[0].toSorted(), expected);
});
