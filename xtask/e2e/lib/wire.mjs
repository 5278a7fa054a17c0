// Speaking to the client port byte by byte, for requests that no well-behaved client would send.

import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect as tcp } from "node:net";
import assert from "node:assert/strict";
import { fetchRaw } from "./raw.mjs";

const ANSWER_MS = 5_000;

/** Sends bytes over a new connection; resolves to everything that came back until the server closed or fell silent. */
export async function send(node, bytes) {
  const { hostname, port } = new URL(node.url);
  const socket = tcp(Number(port), hostname);
  const parts = [];
  socket.on("error", () => {}).on("data", (part) => parts.push(part));
  await once(socket, "connect");
  socket.write(bytes);
  const silent = new Promise((quiet) => {
    let timer = setTimeout(quiet, ANSWER_MS);
    socket.on("data", () => {
      clearTimeout(timer);
      timer = setTimeout(quiet, 100);
    });
  });
  await Promise.race([once(socket, "close"), silent]);
  const closed = socket.destroyed || socket.readableEnded;
  socket.destroy();
  return { text: Buffer.concat(parts).toString("latin1"), closed };
}

/** A request with these header lines, answered as `send` does. */
export const request = (node, line, headers = [], body = "") =>
  send(node, [line, "Host: 127.0.0.1", ...headers, "Connection: close", "", body].join("\r\n"));

/** The status of an answer; 0 when the connection was closed without one. */
export const status = (answer) => Number(answer.text.match(/^HTTP\/1\.[01] (\d{3})/)?.[1] ?? 0);

/** A polling session, opened and, unless told otherwise, connected to the namespace `/`. */
export async function session(node, { connected = true } = {}) {
  const base = `${node.url}/socket.io/?EIO=4&transport=polling`;
  const { sid } = JSON.parse((await fetchRaw(base)).body.toString().slice(1));
  const url = `${base}&sid=${sid}`;
  const self = {
    sid,
    url,
    post: (body, headers = {}) => fetchRaw(url, { method: "POST", body, headers }),
    poll: () => fetchRaw(url),
  };
  if (connected) {
    await self.post("40");
    const answer = await self.poll();
    assert.match(answer.body.toString(), /^40/);
  }
  return self;
}

/** The session no longer exists. */
export async function gone(self) {
  const answer = await self.poll();
  // What was queued before the end may come first, with the closing packet.
  if (answer.status === 200) {
    assert.match(answer.body.toString(), /(^|\u001e)[16]$/);
    return gone(self);
  }
  assert.equal(answer.status, 400);
  assert.deepEqual(JSON.parse(answer.body), { code: 1, message: "Session ID unknown" });
}

/** The session is still there and still answers. */
export async function alive(self) {
  await self.post('42777["room:leave",{"room":"x"}]');
  for (;;) {
    const answer = await self.poll();
    assert.equal(answer.status, 200);
    if (answer.body.includes("43777[")) return;
  }
}

/** A WebSocket after its handshake, spoken frame by frame. */
export async function rawWebSocket(node, query = "EIO=4&transport=websocket", { connected = true } = {}) {
  const { hostname, port } = new URL(node.url);
  const socket = tcp(Number(port), hostname);
  await once(socket, "connect");
  const key = randomBytes(16).toString("base64");
  const lines = ["Host: x", "Upgrade: websocket", "Connection: Upgrade", `Sec-WebSocket-Key: ${key}`];
  socket.write([`GET /socket.io/?${query} HTTP/1.1`, ...lines, "Sec-WebSocket-Version: 13", "", ""].join("\r\n"));
  let bytes = Buffer.alloc(0);
  let ended = false;
  const closed = new Promise((done) => socket.once("close", done)).then(() => (ended = true));
  socket.on("error", () => {}).on("data", (part) => (bytes = Buffer.concat([bytes, part])));
  const wait = async (pattern) => {
    const end = performance.now() + ANSWER_MS;
    while (!pattern.test(bytes.toString("latin1"))) {
      const got = () => JSON.stringify(bytes.toString("latin1"));
      if (ended || performance.now() > end) throw new Error(`no ${pattern} in ${got()}`);
      await new Promise((soon) => setTimeout(soon, 5));
    }
  };
  await wait(/\r\n\r\n/);
  const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
  assert.ok(bytes.includes(accept), "the handshake is not confirmed");
  const self = {
    write: (frame) => socket.write(frame),
    text: (text) => socket.write(frame(1, Buffer.from(text))),
    wait,
    /** Resolves when the server has closed, to the close code it gave, or 0. */
    async end() {
      let timer;
      const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error("the connection was not closed")), ANSWER_MS);
      });
      await Promise.race([closed, late]);
      clearTimeout(timer);
      const at = bytes.lastIndexOf(0x88);
      return at >= 0 && bytes[at + 1] >= 2 ? bytes.readUInt16BE(at + 2) : 0;
    },
    destroy: () => socket.destroy(),
  };
  if (connected) {
    self.text("40");
    await wait(/40\{"sid"/);
  }
  return self;
}

/** One client frame: masked, final and of a small length, unless told otherwise. */
export function frame(opcode, payload, { final = true, masked = true, reserved = 0, length = payload.length } = {}) {
  const head = [(final ? 0x80 : 0) | reserved | opcode];
  const mask = masked ? 0x80 : 0;
  const long = Buffer.alloc(8);
  if (length < 126) {
    head.push(mask | length);
  } else if (length < 65_536) {
    head.push(mask | 126, length >> 8, length & 0xff);
  } else {
    long.writeBigUInt64BE(BigInt(length));
    head.push(mask | 127, ...long);
  }
  const key = masked ? randomBytes(4) : Buffer.alloc(0);
  const body = masked ? payload.map((byte, index) => byte ^ key[index % 4]) : payload;
  return Buffer.concat([Buffer.from(head), key, body]);
}
