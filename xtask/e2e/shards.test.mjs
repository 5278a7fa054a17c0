// A session's requests come over many TCP connections, and the kernel hands each to whichever thread it likes: every
// one must reach the session.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, freshRoom, join, publish, range } from "./lib/client.mjs";
import { fetchRaw } from "./lib/raw.mjs";
import { onClusters } from "./lib/suite.mjs";

const REQUESTS = 60;
const SEPARATOR = "\u001e";

/** A polling session made of single requests, each over a connection of its own. */
class Poller {
  constructor(url) {
    this.base = `${url}/socket.io/?EIO=4&transport=polling`;
    this.packets = [];
  }

  async open() {
    const answer = await fetchRaw(this.base);
    assert.equal(answer.status, 200);
    this.sid = JSON.parse(answer.body.toString().slice(1)).sid;
    await this.post("40");
    while (!this.packets.some((packet) => packet.startsWith("40"))) await this.poll();
  }

  async post(body) {
    const answer = await fetchRaw(`${this.base}&sid=${this.sid}`, { method: "POST", body });
    assert.deepEqual([answer.status, answer.body.toString()], [200, "ok"]);
  }

  async poll() {
    const answer = await fetchRaw(`${this.base}&sid=${this.sid}`);
    assert.equal(answer.status, 200, answer.body.toString());
    this.packets.push(...answer.body.toString().split(SEPARATOR));
  }

  /** Emits with the acknowledgement id and polls until the answer is there. */
  async ask(id, event, argument) {
    await this.post(`42${id}${JSON.stringify([event, argument])}`);
    for (;;) {
      const answer = this.packets.find((packet) => packet.startsWith(`43${id}[`));
      if (answer) return JSON.parse(answer.slice(2 + String(id).length))[0];
      await this.poll();
    }
  }
}

onClusters([1, 3], "many connections per session", (nodes) => {
  test("two polling sessions, every request over a new connection", async () => {
    const room = freshRoom();
    const [reader, writer] = [new Poller(nodes()[0].url), new Poller(nodes().at(-1).url)];
    await Promise.all([reader.open(), writer.open()]);
    assert.equal((await reader.ask(0, "room:join", { room })).ok, true);
    for (const n of range(0, REQUESTS)) {
      const answer = await writer.ask(n, "room:publish", { room, event: "m", args: [n] });
      assert.equal(answer.ok, true, JSON.stringify(answer));
    }
    const events = () => reader.packets.filter((packet) => packet.startsWith("42"));
    while (events().length < REQUESTS) await reader.poll();
    assert.deepEqual(events(), range(0, REQUESTS).map((n) => `42${JSON.stringify(["m", n])}`));
  });

  test("upgrades and polling of thirty sessions at once", async () => {
    const room = freshRoom();
    const sender = await connect(nodes()[0].url);
    const sockets = await Promise.all(
      range(0, 30).map((n) => connect(nodes()[n % nodes().length].url, n % 2 ? {} : { transports: ["polling"] })),
    );
    const got = sockets.map((socket) => new Promise((done) => socket.once("m", done)));
    await Promise.all(sockets.map((socket) => join(socket, room)));
    await publish(sender, room, "m", ["to all"]);
    assert.deepEqual(await Promise.all(got), sockets.map(() => "to all"));
  });
}, ["--shards", "4"]);
