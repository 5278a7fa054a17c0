// Clients that talk to each other for a while, and what is judged of it: everything that was acknowledged arrived once and in
// order, and nobody was disconnected.

import assert from "node:assert/strict";
import { connect, freshRoom, join, publish, range, received } from "./client.mjs";
import { pause, until } from "./wait.mjs";

const ARRIVE_MS = 10_000;

/**
 * One client for each of `options`, in rooms of `together`, each saying something every `every` ms until `ms` have passed.
 * Resolves to what was sent, received, and the clients, which stay connected.
 */
export async function talk(url, options, { together, every, ms }) {
  const clients = [];
  // A few at a time: connecting hundreds at once measures something else.
  for (const part of range(0, Math.ceil(options.length / 20))) {
    const some = options.slice(part * 20, part * 20 + 20);
    clients.push(...(await Promise.all(some.map((mode) => connect(url, mode)))));
  }
  const ended = [];
  const lists = clients.map((client, number) => {
    client.on("disconnect", (reason) => ended.push(`client ${number}: ${reason}`));
    return received(client, "say");
  });
  const rooms = range(0, Math.ceil(clients.length / together)).map(() => freshRoom());
  const roomOf = (number) => Math.floor(number / together);
  await Promise.all(clients.map((client, number) => join(client, rooms[roomOf(number)])));
  const said = clients.map(() => 0);
  const end = performance.now() + ms;
  const talks = clients.map(async (client, number) => {
    await pause(Math.random() * every);
    while (performance.now() < end && client.connected) {
      const next = pause(every);
      await publish(client, rooms[roomOf(number)], "say", [`${number}:${said[number]}`]);
      said[number] += 1;
      await next;
    }
  });
  const failed = (await Promise.allSettled(talks)).filter((talk) => talk.status === "rejected");
  assert.deepEqual([failed.map((talk) => talk.reason.message), ended], [[], []], "talks that failed, clients that were cut");
  const others = (number) => range(0, clients.length).filter((n) => n !== number && roomOf(n) === roomOf(number));
  const due = (number) => others(number).reduce((sum, n) => sum + said[n], 0);
  const arrived = () => lists.every((list, number) => list.length >= due(number));
  await until(arrived, ARRIVE_MS, () => {
    const missing = lists.map((list, number) => due(number) - list.length);
    return `what was said to arrive; missing by client: ${missing.join(" ")}`;
  });
  // A moment longer, so that a repeat would show.
  await pause(200);
  for (const [number, list] of lists.entries()) {
    assert.equal(list.length, due(number), `client ${number} got more than was said`);
    for (const from of others(number)) {
      const heard = list.filter((text) => text.startsWith(`${from}:`));
      assert.deepEqual(heard, range(0, said[from]).map((n) => `${from}:${n}`), `client ${number} of client ${from}`);
    }
  }
  assert.deepEqual(ended, []);
  const sum = (numbers) => numbers.reduce((total, n) => total + n, 0);
  return { clients, sent: sum(said), received: sum(lists.map((list) => list.length)) };
}
