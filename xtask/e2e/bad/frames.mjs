// WebSocket frames that break their protocol, or ours. The connection is closed, with the code that is meant for it
// where there is one.

import assert from "node:assert/strict";
import { frame, rawWebSocket, session } from "../lib/wire.mjs";

const [TEXT, BINARY, CLOSE, PING] = [1, 2, 8, 9];
const small = Buffer.from("40");

/** The connection is closed; `codes` are the close codes that fit, 0 for none. */
const closes = (name, bytes, codes) => ({
  name,
  run: async (node) => {
    const socket = await rawWebSocket(node);
    for (const part of [bytes].flat()) socket.write(part);
    const code = await socket.end();
    if (codes) assert.ok(codes.includes(code), `close code ${code}`);
    socket.destroy();
  },
});

export const frames = [
  closes("a frame without a mask", frame(TEXT, small, { masked: false }), [1002, 0]),
  closes("a reserved bit", frame(TEXT, small, { reserved: 0x40 }), [1002, 0]),
  closes("an opcode that does not exist", frame(3, small), [1002, 0]),
  closes("a control opcode that does not exist", frame(11, small), [1002, 0]),
  closes("a ping in two parts", frame(PING, small, { final: false }), [1002, 0]),
  closes("a ping that is too long", frame(PING, Buffer.alloc(200)), [1002, 0]),
  closes("a continuation of nothing", frame(0, small), [1002, 0]),
  closes("a message inside an unfinished one", [frame(TEXT, small, { final: false }), frame(TEXT, small)], [1002, 0]),
  closes("a close with half a code", frame(CLOSE, Buffer.from([3]))),
  closes("text that is not UTF-8", frame(TEXT, Buffer.from([0x34, 0xff, 0xfe])), [1007, 1002, 0]),
  closes("a message beyond the limit", frame(TEXT, Buffer.alloc(1_100_000, 0x34)), [1009, 0]),
  closes("a length of eight exabytes", frame(TEXT, small, { length: 2 ** 53 - 1 }), [1009, 1002, 0]),
  closes("an empty text", frame(TEXT, Buffer.alloc(0))),
  closes("a packet type that does not exist", frame(TEXT, Buffer.from("9"))),
  closes("a ping packet from a client", frame(TEXT, Buffer.from("2"))),
  closes("bytes that no event announced", frame(BINARY, Buffer.from([1, 2, 3]))),
  closes("an event that is not JSON", frame(TEXT, Buffer.from('42["m",}'))),
  {
    name: "ten thousand fragments of one byte, then silence",
    run: async (node) => {
      const socket = await rawWebSocket(node);
      socket.write(frame(TEXT, Buffer.from("4"), { final: false }));
      const fragment = Array.from({ length: 10_000 }, () => frame(0, Buffer.from("x"), { final: false }));
      socket.write(Buffer.concat(fragment));
      socket.destroy();
    },
  },
  {
    name: "a second WebSocket for a session that has one",
    run: async (node) => {
      const { sid } = await session(node);
      const query = `EIO=4&transport=websocket&sid=${sid}`;
      const first = await rawWebSocket(node, query, { connected: false });
      first.text("2probe");
      await first.wait(/3probe/);
      first.text("5");
      const second = await rawWebSocket(node, query, { connected: false });
      await second.end();
      first.text('42777["room:leave",{"room":"x"}]');
      await first.wait(/43777\[/);
      first.destroy();
    },
  },
];
