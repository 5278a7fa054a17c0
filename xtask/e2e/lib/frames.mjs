// Seeing from outside which node owns a room, by counting the frames that nodes receive.

import { connect, done } from "./client.mjs";
import { pause } from "./wait.mjs";

const PROBES = 10;

/** Long enough for what is on a loopback link to arrive. */
const ARRIVED_MS = 300;

/** Frames that the node received from other nodes since it started, gossip not among them. */
export async function roomFrames(node) {
  await pause(ARRIVED_MS);
  return node.metric("starling_mesh_frames_total", { direction: "received" });
}

/** The node that owns the room: each node but the owner sends it what it publishes, the owner sends nothing. */
export async function ownerOf(nodes, room) {
  const [first, ...others] = nodes;
  const sender = await connect(first.url);
  const before = await Promise.all(others.map(roomFrames));
  for (let n = 0; n < PROBES; n += 1) await done(sender, "room:publish", { room, event: "probe", args: [n] });
  const after = await Promise.all(others.map(roomFrames));
  sender.disconnect();
  return others.find((_, index) => after[index] - before[index] >= PROBES) ?? first;
}
