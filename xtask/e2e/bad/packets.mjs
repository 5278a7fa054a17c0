// Bodies posted to a live polling session that are not Engine.IO or not Socket.IO. The session ends, or, where the
// packet is harmless, goes on; nobody else notices.

import assert from "node:assert/strict";
import { fetchRaw } from "../lib/raw.mjs";
import { alive, gone, session } from "../lib/wire.mjs";

/** The session is gone afterwards, whatever the POST was answered with. */
const ends = (name, body, options) => ({
  name,
  run: async (node) => {
    const self = await session(node, options);
    const answer = await self.post(body, options?.headers);
    assert.ok([200, 400].includes(answer.status), `status ${answer.status}`);
    await gone(self);
  },
});

/** The session goes on: the packet is refused by its own answer or ignored. */
const survives = (name, body) => ({
  name,
  run: async (node) => {
    const self = await session(node);
    assert.equal((await self.post(body)).status, 200);
    await alive(self);
  },
});

const event = (text) => `42${text}`;
const nested = (depth) => `${"[".repeat(depth)}${"]".repeat(depth)}`;

export const packets = [
  ends("a packet type that does not exist", "9"),
  ends("a ping from a client", "2"),
  ends("base64 that is none", "b!!!"),
  ends("bytes that are not UTF-8", Buffer.from([0x34, 0xff, 0xfe])),
  ends("an empty packet between two", "40\u001e\u001e40"),
  ends("ten thousand packets at once", Array(10_000).fill("3").join("\u001e")),
  ends("a Socket.IO packet without a type", "4"),
  ends("a Socket.IO type that does not exist", "49"),
  ends("an event without anything", event("")),
  ends("an event cut short", event('["m",')),
  ends("an event that is an object", event("{}")),
  ends("an event that is a text", event('"m"')),
  ends("an event without a name", event("[]")),
  ends("an event whose name is an object", event('[{"room":"x"}]')),
  ends("an event whose name is null", event("[null]")),
  ends("an acknowledgement number beyond all numbers", event('99999999999999999999999["room:leave",{}]')),
  ends("an answer without a number", "43[]"),
  ends("an event before CONNECT", event('["room:join",{"room":"x"}]'), { connected: false }),
  ends("a CONNECT whose payload is cut short", "40{", { connected: false }),
  ends("a CONNECT whose payload is a list", "40[]", { connected: false }),
  ends("a refusal from a client", '44{"message":"no"}'),
  ends("more attachments than allowed", `4599-["m",${nested(2)}]`),
  ends("attachments without a number", '45-["m"]'),
  ends("an attachment that is not there", '451-["m",{"_placeholder":true,"num":7}]\u001ebAAAA'),
  ends("an attachment with a negative number", '451-["m",{"_placeholder":true,"num":-1}]\u001ebAAAA'),
  ends("an attachment that nobody announced", "bAAAA"),
  ends("text where an attachment is due", '451-["m",{"_placeholder":true,"num":0}]\u001e42["m"]'),
  ends("a JSON list a hundred thousand deep", event(`1["m",${nested(100_000)}]`)),
  ends("leaving a namespace that was never joined", "41/nowhere,"),
  ends("an event for a namespace that was never joined", '42/nowhere,["m"]'),
  survives("an open packet from a client", "0{}"),
  survives("an answer to a question that was never asked", "4377[]"),
  {
    name: "a body beyond the limit, after which the session goes on",
    run: async (node) => {
      const self = await session(node);
      assert.equal((await self.post(`4${"x".repeat(1_100_000)}`)).status, 413);
      await alive(self);
    },
  },
  {
    name: "a body that is binary by its type",
    run: async (node) => {
      const self = await session(node);
      assert.equal((await self.post("40", { "content-type": "application/octet-stream" })).status, 400);
    },
  },
  {
    name: "a second poll while one is open",
    run: async (node) => {
      const self = await session(node);
      const [first, second] = await Promise.all([self.poll(), self.poll()]);
      assert.deepEqual([first.status, second.status].sort(), [200, 400]);
      await gone(self);
    },
  },
  {
    name: "a method that a session does not have",
    run: async (node) => {
      const self = await session(node);
      const answer = await fetchRaw(self.url, { method: "PUT", body: "40" });
      assert.ok([400, 405, 500].includes(answer.status), `status ${answer.status}`);
      assert.equal(answer.body.length, 0);
    },
  },
];
