// Seeing from outside what a node is to a room, by counting the frames that it receives and why.

import { connect, done } from "./client.mjs";
import { pause } from "./wait.mjs";

const PROBES = 10;

/** Long enough for what is on a loopback link to arrive. */
const ARRIVED_MS = 300;

const PURPOSES = ["publish", "keep", "show"];

/** Frames of rooms that the node received from other nodes since it started, by why they came. */
export async function roomFrames(node) {
  await pause(ARRIVED_MS);
  const counts = await Promise.all(PURPOSES.map((purpose) => node.metric("starling_mesh_room_frames_total", { purpose })));
  return Object.fromEntries(PURPOSES.map((purpose, at) => [purpose, counts[at]]));
}

/** Who orders the room, who holds its second copy, and who has nothing to do with it: all but the owner send it what is published there. */
export async function partsOf(nodes, room) {
  const [first, ...others] = nodes;
  const sender = await connect(first.url);
  // Nobody orders a room before it is used.
  await done(sender, "room:publish", { room, event: "probe", args: [] });
  const before = await Promise.all(nodes.map(roomFrames));
  for (let n = 0; n < PROBES; n += 1) await done(sender, "room:publish", { room, event: "probe", args: [n] });
  const after = await Promise.all(nodes.map(roomFrames));
  sender.disconnect();
  const got = (purpose) => nodes.find((_, at) => after[at][purpose] - before[at][purpose] >= PROBES);
  const owner = got("publish") ?? first;
  const replica = got("keep");
  return { owner, replica, idle: [first, ...others].find((node) => node !== owner && node !== replica) };
}
