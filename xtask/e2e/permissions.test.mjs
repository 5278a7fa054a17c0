// What [[namespace]] allows: everybody, those who are signed in, members; one's own rooms; relay; ephemeral namespaces.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as path } from "node:path";
import { after, before, describe, test } from "node:test";
import { ask, closeAll, connect, done, freshRoom, gets, join, publish, range, received, refused } from "./lib/client.mjs";
import { example, startCluster } from "./lib/cluster.mjs";
import { until } from "./lib/wait.mjs";

const RULES = `
[auth]
anonymous = true

[[namespace]]
name = "/"
allow_join = "anonymous"
allow_publish = "member"
allow_history = "member"
allow_presence = "authenticated"
allow_broadcast = "authenticated"

[[namespace.rooms]]
pattern = "closed:*"
allow_join = "nobody"

[[namespace.rooms]]
pattern = "inbox:{user}"
allow_join = "authenticated"

[[namespace.rooms]]
pattern = "inbox:*"
allow_publish = "anonymous"

[[namespace.rooms]]
pattern = "short:*"
history = {size = 3}

[[namespace.rooms]]
pattern = "secret:*"
history = {size = 0}

[[namespace]]
name = "/cursors"
class = "ephemeral"
presence = false
relay = "sender_rooms"
allow_join = "anonymous"
allow_publish = "member"

[[namespace.rooms]]
pattern = "read:*"
allow_publish = "nobody"
`;

/** Declares tests against nodes with these rules: the plain program, or an example whose clients have names. */
function onNodes(size, program, body) {
  describe(`${program ?? "starling"} with rules, ${size} process(es)`, () => {
    const folder = mkdtempSync(path(tmpdir(), "starling-rules-"));
    let cluster;
    before(async () => {
      const file = path(folder, "starling.toml");
      writeFileSync(file, RULES);
      const binary = program && example(program);
      cluster = await startCluster(size, ["--config", file], {}, ...(binary ? [binary] : []));
    });
    after(async () => {
      closeAll();
      await cluster?.stop();
      rmSync(folder, { recursive: true, force: true });
    });
    body((index) => cluster.nodes.at(index));
  });
}

for (const size of [1, 3]) {
  onNodes(size, undefined, (node) => {
    const on = (index, namespace) => connect(node(index).url, {}, namespace);

    test("what needs membership is not_member before joining, and allowed after", async () => {
      const [a, b, room] = [await on(0), await on(-1), freshRoom()];
      const news = received(b, "m");
      await refused(a, "room:publish", { room, event: "m", args: [1] }, "not_member");
      await refused(a, "room:history", { room }, "not_member");
      await join(a, room, { history: { last: 1 } });
      await join(b, room);
      await publish(a, room, "m", [2]);
      await gets(news, 1);
      assert.deepEqual((await done(a, "room:history", { room })).items.map((item) => item.args), [[2]]);
      await done(a, "room:leave", { room });
      await refused(a, "room:publish", { room, event: "m", args: [3] }, "not_member");
    });

    test("what needs a name is unauthorized for those who have none", async () => {
      const [a, room] = [await on(0), freshRoom()];
      await refused(a, "room:presence", { room }, "unauthorized");
      await refused(a, "room:join", { room, presence: true }, "unauthorized");
      await refused(a, "room:publish", { event: "m", args: [] }, "unauthorized");
      await refused(a, "room:join", { room: "inbox:ann" }, "unauthorized");
    });

    test("what nobody may is forbidden, whether the room exists or not", async () => {
      const [a, b] = [await on(0), await on(-1)];
      const answers = [];
      for (const room of ["closed:1", "closed:2"]) answers.push(await ask(a, "room:join", { room }));
      assert.deepEqual(answers[0], answers[1]);
      await refused(a, "room:join", { room: "closed:1" }, "forbidden");
      for (const room of ["user:ann", b.id]) {
        for (const event of ["room:join", "room:history", "room:presence"]) await refused(a, event, { room }, "forbidden");
        await refused(a, "room:publish", { room, event: "m", args: [] }, "forbidden");
      }
      await refused(a, "room:leave", { room: b.id }, "forbidden");
    });

    test("a namespace that is not written does not exist", async () => {
      const why = await on(0, "/other").then(() => assert.fail("let in"), (error) => error);
      assert.deepEqual([why.message, why.data], ["Invalid namespace", { code: "bad_request" }]);
    });

    test("refusals are counted by their reason", async () => {
      const before = await node(0).metric("starling_rejected_total", { reason: "not_member" });
      await refused(await on(0), "room:publish", { room: freshRoom(), event: "m", args: [] }, "not_member");
      const count = async () => (await node(0).metric("starling_rejected_total", { reason: "not_member" })) > before;
      await until(count, 3_000, () => "the refusal to be counted");
    });

    test("rooms keep what their own rule says", async () => {
      const [a, b] = [await on(0), await on(-1)];
      for (const [prefix, kept] of [["short:", 3], ["secret:", 0], ["", 10]]) {
        const room = prefix + freshRoom();
        await join(a, room);
        for (const n of range(0, 10)) await publish(a, room, "m", [n]);
        const joined = await join(b, room, { history: { last: 100 } });
        assert.deepEqual(joined.history.map((item) => item.args[0]), range(10 - kept, 10), room);
        assert.equal((await done(b, "room:history", { room })).items.length, kept, room);
      }
    });

    test("an ephemeral namespace keeps nothing, and says so", async () => {
      const [a, b, room] = [await on(0, "/cursors"), await on(-1, "/cursors"), freshRoom()];
      const moves = received(b, "move");
      await join(a, room);
      await join(b, room);
      assert.deepEqual(await publish(a, room, "move", [1]), { ok: true });
      await gets(moves, 1);
      await refused(a, "room:publish", { room, event: "move", args: [], id: "x" }, "bad_request");
      await refused(a, "room:join", { room, history: { last: 5 } }, "bad_request");
      await refused(a, "room:history", { room }, "bad_request");
      await refused(a, "room:join", { room, presence: true }, "bad_request");
      await refused(a, "room:presence", { room }, "bad_request");
    });

    test("an event that nobody handles goes to the rooms of its sender, once each", async () => {
      const [one, two] = [freshRoom(), freshRoom()];
      const [a, b, c] = [await on(0, "/cursors"), await on(-1, "/cursors"), await on(-1, "/cursors")];
      const heard = [a, b, c].map((socket) => received(socket, "wave"));
      for (const room of [one, two]) for (const socket of [a, b]) await join(socket, room);
      await join(c, two);
      assert.deepEqual(await ask(a, "wave", { hand: "left" }), { ok: true });
      a.emit("wave", Buffer.from("bytes"), 2);
      await Promise.all([gets(heard[1], 2), gets(heard[2], 2)]);
      assert.deepEqual(heard, [[], [{ hand: "left" }, Buffer.from("bytes")], [{ hand: "left" }, Buffer.from("bytes")]]);
      await refused(a, "room:joined", {}, "bad_request");
      await refused(await on(0), "wave", {}, "unhandled_event");
    });

    test("relay respects what may be published, and an empty room is no mistake", async () => {
      const [a, room] = [await on(0, "/cursors"), "read:" + freshRoom()];
      assert.deepEqual(await ask(a, "wave", 1), { ok: true });
      await join(a, room);
      await refused(a, "wave", 1, "forbidden");
    });
  });

  onNodes(size, "chat", (node) => {
    const as = (name, index) => connect(node(index).url, { auth: { name } });

    test("a user's inbox is that user's, and a name is never read as a pattern", async () => {
      const [ann, bob, star] = [await as("ann", 0), await as("bob", -1), await as("*", 0)];
      const mail = received(ann, "mail");
      await join(ann, "inbox:ann");
      await refused(bob, "room:join", { room: "inbox:ann" }, "forbidden");
      await refused(star, "room:join", { room: "inbox:ann" }, "forbidden");
      await refused(star, "room:join", { room: "inbox:*x" }, "forbidden");
      await publish(bob, "inbox:ann", "mail", ["hello"]);
      await gets(mail, 1);
    });

    test("every socket of a user is in the user's room, others stay out", async () => {
      const [first, second, bob] = [await as("eve", 0), await as("eve", -1), await as("bob", 0)];
      const news = received(second, "news");
      const said = () => ask(first, "room:publish", { room: "user:eve", event: "news", args: ["mine"] });
      // The room is entered by itself, a moment after the connection.
      await until(async () => (await said()).ok && news.length > 0, 5_000, () => "the user's own room");
      assert.equal(news[0], "mine");
      await refused(bob, "room:publish", { room: "user:eve", event: "news", args: [] }, "forbidden");
      await refused(bob, "room:join", { room: "user:eve" }, "forbidden");
      await refused(bob, "room:history", { room: "user:eve" }, "forbidden");
      await refused(first, "room:leave", { room: "user:eve" }, "forbidden");
    });

    test("members are shown with their users, and messages are kept with theirs", async () => {
      const [room, ann, bob] = [freshRoom(), await as("ann", 0), await as("bob", -1)];
      const joined = received(ann, "room:joined");
      await join(ann, room, { presence: true });
      await join(bob, room, { presence: true });
      await gets(joined, 1);
      assert.deepEqual(joined, [{ room, member: { id: bob.id, user: "bob" } }]);
      const { members } = await done(ann, "room:presence", { room });
      assert.deepEqual(members.map((member) => member.user).sort(), ["ann", "bob"]);
      // Another node shows in history what has reached it.
      const heard = received(ann, "m");
      await publish(bob, room, "m", [1]);
      await gets(heard, 1);
      assert.deepEqual((await done(ann, "room:history", { room })).items.map((item) => item.from), ["bob"]);
    });

    test("who is signed in may publish to the whole namespace", async () => {
      const [ann, bob] = [await as("ann", 0), await as("bob", -1)];
      const news = received(bob, "all");
      await until(async () => {
        assert.deepEqual(await done(ann, "room:publish", { event: "all", args: [1] }), { ok: true });
        return news.length > 0;
      }, 5_000, () => "a message for the namespace");
    });
  });
}
