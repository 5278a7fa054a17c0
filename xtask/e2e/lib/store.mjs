// What the tests of the store have in common: messages that prove themselves, and what is left of them.
//
// A message carries its room, a number and a checksum of both with its filling, so that a wrong byte anywhere shows.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { connect, done } from "./client.mjs";

const PAGE = 1_000;

const sum = (text) => createHash("sha256").update(text).digest("base64");

/** The arguments of message `n` of `room`. */
export function message(room, n) {
  const filling = `${n}:`.repeat(1 + (n % 60));
  return [{ room, n, filling }, sum(`${room} ${n} ${filling}`)];
}

/** The number of a message of `room`; throws if one byte of it is not what was published. */
export function proven(room, args) {
  const [{ room: said, n, filling }, checksum] = args;
  assert.equal(said, room, `a message of ${said} was delivered in ${room}`);
  assert.equal(checksum, sum(`${room} ${n} ${filling}`), `message ${n} of ${room} has wrong bytes`);
  return n;
}

/** Everything that history holds of a room, oldest first: `{offset, n}`, every byte proven. */
export async function stored(socket, room) {
  const items = [];
  let before;
  for (;;) {
    const page = await done(socket, "room:history", { room, limit: PAGE, reverse: true, ...before });
    items.push(...page.items.map((item) => ({ offset: item.offset, n: proven(room, item.args) })));
    if (page.complete || page.items.length === 0) return items.reverse();
    before = { since: page.items.at(-1).offset, epoch: page.epoch };
  }
}

/** What the checks of /readyz say, by name; the process must answer, ready or not. */
export async function readiness(node) {
  const report = await (await fetch(`${node.admin}/readyz`)).json();
  return Object.fromEntries(report.checks.map((check) => [check.name, check.ok ? "ok" : (check.why ?? "not ok")]));
}

/** A socket as soon as the node accepts one. */
export async function connectSoon(node, ms = 20_000) {
  const end = performance.now() + ms;
  for (;;) {
    if (node.end) throw new Error(`${node.name} ended with ${JSON.stringify(node.end)}\n${node.log.join("\n")}`);
    try {
      return await connect(node.url, { transports: ["websocket"] });
    } catch (error) {
      if (performance.now() > end) throw error;
      await new Promise((next) => setTimeout(next, 50));
    }
  }
}
