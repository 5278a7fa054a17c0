// The official client, with the few verbs that the tests say over and over.

import { once } from "node:events";
import assert from "node:assert/strict";
import { io } from "socket.io-client";
import parser from "socket.io-msgpack-parser";
import { until } from "./wait.mjs";

const ANSWER_MS = 8_000;

/** The three ways in which people use the client. */
export const MODES = {
  "default settings": {},
  "websocket only": { transports: ["websocket"] },
  "polling only": { transports: ["polling"] },
};

/** The two parsers that clients come with. */
export const PARSERS = { JSON: {}, msgpack: { parser } };

/** Every socket opened by this test file, so that one call closes what a failed test left open. */
const open = new Set();

/** A connected socket with a connection of its own. */
export async function connect(url, options = {}, namespace = "/") {
  const socket = io(url + namespace, { forceNew: true, reconnection: false, ...options });
  open.add(socket);
  const failed = once(socket, "connect_error").then(([error]) => Promise.reject(error));
  failed.catch(() => {});
  await Promise.race([once(socket, "connect"), failed, tooLate(`a connection to ${url}`)]);
  return socket;
}

/** Closes every socket that is still open. */
export function closeAll() {
  for (const socket of open) socket.disconnect();
  open.clear();
}

/** Emits an event with one argument and resolves to the acknowledgement. */
export const ask = (socket, event, argument) => socket.timeout(ANSWER_MS).emitWithAck(event, argument);

/** As `ask`, and the answer must be ok. */
export async function done(socket, event, argument) {
  const answer = await ask(socket, event, argument);
  assert.equal(answer.ok, true, `${event} ${JSON.stringify(argument)}: ${JSON.stringify(answer)}`);
  return answer;
}

/** As `ask`, and the answer must be this refusal. */
export async function refused(socket, event, argument, code) {
  const answer = await ask(socket, event, argument);
  assert.equal(answer.ok, false, `${event} ${JSON.stringify(argument)} was accepted: ${JSON.stringify(answer)}`);
  assert.equal(answer.code, code, `${event} ${JSON.stringify(argument)}: ${JSON.stringify(answer)}`);
  assert.equal(typeof answer.message, "string");
}

export const join = (socket, room, more = {}) => done(socket, "room:join", { room, ...more });
export const publish = (socket, room, event, args, more = {}) =>
  done(socket, "room:publish", { room, event, args, ...more });

/** The list of first arguments that the socket receives with this event, growing as they come. */
export function received(socket, event) {
  const list = [];
  socket.on(event, (value) => list.push(value));
  return list;
}

/** Waits until the list has as many entries, then a moment longer, so that a repeat would show. */
export async function gets(list, count) {
  await until(() => list.length >= count, ANSWER_MS, () => `${count} messages, got ${list.length}`);
  await new Promise((settle) => setTimeout(settle, 50));
  assert.equal(list.length, count);
}

/** `from`, `from + 1`, … `to - 1`. */
export const range = (from, to) => Array.from({ length: to - from }, (_, index) => from + index);

let rooms = 0;
/** A room name that no other test uses. */
export const freshRoom = () => `room-${process.pid}-${(rooms += 1)}`;

async function tooLate(what) {
  let timer;
  await new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ANSWER_MS} ms for ${what}`)), ANSWER_MS);
    timer.unref();
  });
}
