// Seeing from outside who has which part in a room, and how much of it a node receives.

import { pause } from "./wait.mjs";

/** Long enough for what is on a loopback link to arrive. */
const ARRIVED_MS = 300;

/** Bytes that the node received from other nodes in its lanes since it started: room frames, and what slots say to each other. */
export async function roomBytes(node) {
  await pause(ARRIVED_MS);
  return node.metric("starling_mesh_bytes_total", { direction: "received" });
}

/** The nodes that order the room, hold its second copy and vote on it. */
export async function placeOf(nodes, room) {
  const place = await (await fetch(`${nodes[0].admin}/api/rooms/${encodeURIComponent(room)}`)).json();
  const of = (part) => nodes.find((node) => node.name === place[part]);
  return { owner: of("owner"), replica: of("replica"), witness: of("witness") };
}

/** The node that orders the room. */
export const ownerOf = async (nodes, room) => (await placeOf(nodes, room)).owner;
