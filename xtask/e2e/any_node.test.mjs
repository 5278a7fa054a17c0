// No sticky sessions: every request of a client goes to another node than the one before, and nobody notices.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import { WebSocket } from "ws";
import { closeAll, connect, done, freshRoom, gets, join, MODES, publish, range, received } from "./lib/client.mjs";
import { startCluster } from "./lib/cluster.mjs";
import { fetchRaw } from "./lib/raw.mjs";
import { ordinal, scatter } from "./lib/scatter.mjs";
import { talk } from "./lib/traffic.mjs";
import { pause, until } from "./lib/wait.mjs";

const CLIENTS = 4;

describe("behind a balancer without affinity", () => {
  let cluster, proxy;
  before(async () => {
    cluster = await startCluster(3, [], { STARLING_SOCKETIO__PING_INTERVAL: "1s", STARLING_SOCKETIO__PING_TIMEOUT: "2s" });
    proxy = await scatter(cluster.nodes);
  });
  after(async () => {
    closeAll();
    await proxy?.close();
    await cluster?.stop();
  });

  const sum = async (name, labels) => {
    const figures = await Promise.all(cluster.nodes.map((node) => node.metric(name, labels)));
    return figures.reduce((total, figure) => total + figure, 0);
  };

  for (const [mode, options] of Object.entries(MODES)) {
    test(`${mode}: everything arrives once and in order`, async () => {
      proxy.refusals.length = 0;
      // Longer than two heartbeats, so that pings and pongs go over other nodes too.
      const { sent } = await talk(proxy.url, Array(CLIENTS).fill(options), { together: CLIENTS, every: 50, ms: 2_500 });
      assert.ok(sent > 10 * CLIENTS, `only ${sent} messages`);
      assert.deepEqual(proxy.refusals, []);
      closeAll();
    });
  }

  test("requests were carried, and none was lost", async () => {
    assert.ok((await sum("starling_forwarded_requests_total", { kind: "poll", result: "answered" })) > 50);
    assert.ok((await sum("starling_forwarded_requests_total", { kind: "post", result: "answered" })) > 50);
    assert.ok((await sum("starling_forwarded_requests_total", { kind: "upgrade", result: "answered" })) > 0);
    for (const result of ["gone", "busy", "late", "lost"]) {
      assert.equal(await sum("starling_forwarded_requests_total", { result }), 0, result);
    }
    assert.ok((await sum("starling_forwarded_bytes_total", { direction: "sent" })) > 10_000);
    await until(async () => (await sum("starling_forwarded_upgrades", {})) === 0, 5_000, () => "relays to end");
  });

  test("bytes and large messages pass both ways, whatever the transport", async () => {
    for (const options of [{ transports: ["polling"] }, {}]) {
      const [from, to] = [await connect(proxy.url, options), await connect(proxy.url, options)];
      if (options.transports === undefined) await Promise.all([from, to].map(upgraded));
      const room = freshRoom();
      await join(to, room);
      const got = received(to, "blob");
      const blob = Buffer.alloc(300_000, "starling");
      await publish(from, room, "blob", [blob]);
      await publish(from, room, "blob", ["x".repeat(300_000)]);
      await gets(got, 2);
      assert.deepEqual(Buffer.from(got[0]), blob);
      assert.equal(got[1].length, 300_000);
    }
    closeAll();
  });

  test("an upgraded client works like a local one, and its end is noticed", async () => {
    const client = await connect(proxy.url);
    await upgraded(client);
    const end = once(client, "disconnect");
    await done(client, "room:join", { room: freshRoom() });
    await pause(2_500);
    assert.equal(client.connected, true, "heartbeats pass");
    client.disconnect();
    assert.deepEqual((await end)[0], "io client disconnect");
    await until(async () => (await sum("starling_connections", {})) === 0, 5_000, () => "its session to end");
    await until(async () => (await sum("starling_forwarded_upgrades", {})) === 0, 5_000, () => "its relay to end");
  });

  describe("by hand", () => {
    const ask = (node, query, more) => fetchRaw(`${node.url}/socket.io/?EIO=4&transport=polling${query}`, more);
    const open = async (node) => JSON.parse((await ask(node, "")).body.toString().slice(1)).sid;
    const unknown = '{"code":1,"message":"Session ID unknown"}';
    const others = (node) => cluster.nodes.filter((other) => other !== node);

    test("a poll that its client gives up at another node ends its session", async () => {
      const [home, away] = cluster.nodes;
      const sid = await open(home);
      assert.equal(ordinal(sid), 0);
      await ask(away, `&sid=${sid}`, { method: "POST", body: "40" });
      await ask(away, `&sid=${sid}`);
      const gone = new AbortController();
      const parked = fetch(`${away.url}/socket.io/?EIO=4&transport=polling&sid=${sid}`, { signal: gone.signal });
      await pause(200);
      gone.abort();
      await assert.rejects(parked);
      await until(async () => (await ask(home, `&sid=${sid}`)).body.toString() === unknown, 2_000, () => "its end");
    });

    test("a second POST meanwhile, at a third node, is the protocol's error", async () => {
      const [home, second, third] = cluster.nodes;
      const sid = await open(home);
      const slow = new ReadableStream({
        async start(controller) {
          controller.enqueue(Buffer.from("40"));
          await pause(500);
          controller.close();
        },
      });
      const url = (node) => `${node.url}/socket.io/?EIO=4&transport=polling&sid=${sid}`;
      const first = fetch(url(second), { method: "POST", body: slow, duplex: "half" });
      await pause(200);
      const other = await ask(third, `&sid=${sid}`, { method: "POST", body: "3" });
      assert.deepEqual([other.status, other.body.length], [400, 0]);
      assert.equal((await first).status, 400);
      assert.equal((await ask(home, `&sid=${sid}`)).body.toString(), unknown);
    });

    test("a body that is too large is refused at the edge, and the session goes on", async () => {
      const [home, away] = cluster.nodes;
      const sid = await open(home);
      const large = await ask(away, `&sid=${sid}`, { method: "POST", body: "4".repeat(1_100_000) });
      assert.equal(large.status, 413);
      const next = await ask(away, `&sid=${sid}`, { method: "POST", body: "40" });
      assert.equal(next.body.toString(), "ok");
    });

    test("an id that no node made is refused without a word to any", async () => {
      const sid = await open(cluster.nodes[0]);
      // Whatever the tests before have left is counted by then.
      await pause(200);
      const before = await sum("starling_forwarded_requests_total", {});
      const forged = Buffer.from(sid, "base64url");
      forged[20] ^= 1;
      for (const node of cluster.nodes) {
        const answer = await ask(node, `&sid=${forged.toString("base64url")}`);
        assert.deepEqual([answer.status, answer.body.toString()], [400, unknown]);
      }
      assert.equal(await sum("starling_forwarded_requests_total", {}), before);
    });

    test("a carried WebSocket that breaks a limit hears the code that a local one does", async () => {
      const [home, away] = cluster.nodes;
      const sid = await open(home);
      const socket = new WebSocket(`${away.url}/socket.io/?EIO=4&transport=websocket&sid=${sid}`.replace("http", "ws"));
      await once(socket, "open");
      const said = [];
      socket.on("message", (data) => said.push(data.toString()));
      socket.send("2probe");
      await until(() => said.includes("3probe"), 2_000, () => "the answer to the probe");
      socket.send("5");
      socket.send("40");
      await until(() => said.some((text) => text.startsWith("40{")), 2_000, () => "the namespace");
      const closed = once(socket, "close");
      socket.send(`42["blob","${"x".repeat(1_100_000)}"]`);
      assert.equal((await closed)[0], 1009);
      await until(async () => (await ask(home, `&sid=${sid}`)).body.toString() === unknown, 2_000, () => "its end");
    });

    test("a client that takes nothing costs its own carried WebSocket and no other", async () => {
      const room = freshRoom();
      const carrying = await scatter(cluster.nodes, ({ home, upgrade }) => home + (upgrade ? 1 : 0));
      const [stuck, well] = await Promise.all([connect(carrying.url), connect(carrying.url)]);
      await Promise.all([stuck, well].map(upgraded));
      await Promise.all([join(stuck, room), join(well, room)]);
      const got = received(well, "say");
      // What the kernel holds of the client's socket is not read any more.
      stuck.io.engine.transport.ws._socket.pause();
      assert.ok((await sum("starling_forwarded_upgrades", {})) >= 2);
      const from = await connect(cluster.nodes[0].url, { transports: ["websocket"] });
      for (const n of range(0, 60)) await publish(from, room, "say", ["x".repeat(100_000), n]);
      await gets(got, 60);
      closeAll();
      await carrying.close();
    });

    test("an owner that hangs is given up in time", async () => {
      const [, home, away] = cluster.nodes;
      const sid = await open(home);
      process.kill(home.pid, "SIGSTOP");
      try {
        const start = performance.now();
        const poll = ask(away, `&sid=${sid}`);
        const post = ask(away, `&sid=${sid}`, { method: "POST", body: "40" });
        for (const answer of await Promise.all([poll, post])) assert.equal(answer.body.toString(), unknown);
        const took = performance.now() - start;
        assert.ok(took < 7_000, `${took} ms`);
      } finally {
        process.kill(home.pid, "SIGCONT");
      }
      const alive = async (node) => (await node.cluster()).members.every((member) => member.state === "alive");
      const all = async () => (await Promise.all(cluster.nodes.map(alive))).every(Boolean);
      await until(all, 15_000, () => "all to be alive again");
    });

    test("a session whose node is gone is unknown at once, and one of its earlier life too", async () => {
      const home = cluster.nodes[2];
      const sid = await open(home);
      const parked = ask(others(home)[0], `&sid=${sid}`);
      await ask(others(home)[1], `&sid=${sid}`, { method: "POST", body: "40" });
      assert.match((await parked).body.toString(), /^40/);
      const waiting = ask(others(home)[0], `&sid=${sid}`);
      await pause(100);
      await home.stop("SIGKILL");
      await until(
        async () => {
          const start = performance.now();
          const answer = await ask(others(home)[1], `&sid=${sid}`);
          assert.deepEqual([answer.status, answer.body.toString()], [400, unknown]);
          return performance.now() - start < 200;
        },
        10_000,
        () => "an answer at once",
      );
      assert.equal((await waiting).body.toString(), unknown, "the poll that was parked");
      await home.start();
      for (const node of cluster.nodes) assert.equal((await ask(node, `&sid=${sid}`)).body.toString(), unknown);
    });
  });
});

const upgraded = (client) =>
  until(() => client.io.engine.transport.name === "websocket", 5_000, () => "an upgrade");
