// `cargo xtask cluster-soak`: three processes under a steady load, judged from outside.
//
// One room has members and publishers on all three nodes and is driven by `loadtest`, which checks loss, repeats and
// one identical order; half-way somebody joins it late on a node that does not own it. Another room has members on one
// node only; on the node that only votes on it the bytes are counted. Exits 0 when every promise held.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { parseArgs } from "node:util";
import { closeAll, connect, freshRoom, join, publish, range, received } from "./lib/client.mjs";
import { startCluster } from "./lib/cluster.mjs";
import { ownerOf, placeOf, roomBytes } from "./lib/frames.mjs";
import { pause, until } from "./lib/wait.mjs";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    rate: { type: "string", default: "200" },
    members: { type: "string", default: "300" },
  },
});
const LAST = 50;
const cluster = await startCluster(3);
try {
  console.log(`three processes: ${cluster.nodes.map((node) => `${node.name} ${node.url}`).join(", ")}`);
  await idleNode(cluster.nodes);
  await load(cluster.nodes);
  console.log("every promise held");
} catch (error) {
  console.error(`FAILED: ${error.message}`);
  process.exitCode = 1;
} finally {
  closeAll();
  await cluster.stop();
}

/** Before the load, when nothing else is on the links: a node that only votes on a room receives none of its messages. */
async function idleNode(nodes) {
  const room = freshRoom();
  const { owner, replica: home, witness: idle } = await placeOf(nodes, room);
  const sender = await connect(home.url);
  const list = received(await connect(home.url).then((member) => join(member, room).then(() => member)), "m");
  const [before, body] = [await roomBytes(idle), "x".repeat(2_000)];
  for (const n of range(0, 1_000)) await publish(sender, room, "m", [n, body]);
  await until(() => list.length === 1_000, 10_000, () => `1,000 messages, got ${list.length}`);
  const bytes = (await roomBytes(idle)) - before;
  assert.ok(bytes < 50 * body.length, `${idle.name} has no copy of the room and no members, and received ${bytes} bytes`);
  console.log(`idle node: ${owner.name} owns, members on ${home.name}, 1,000 messages of 2 kB; ${idle.name} received ${bytes} bytes`);
}

/** The steady load, with a late joiner half-way on a node that does not own the room. */
async function load(nodes) {
  const room = freshRoom();
  const owner = await ownerOf(nodes, room);
  const guest = nodes.find((node) => node !== owner);
  const seconds = Number(values.seconds);
  const args = ["run", "broadcast", "--room", room, "--members", values.members, "--publishers", "3"];
  args.push("--rate", values.rate, "--duration", `${seconds}s`);
  args.push(...["lost==0", "duplicated==0", "reordered==0", "orders==1"].flatMap((promise) => ["--expect", promise]));
  args.push(...nodes.flatMap((node) => ["--target", node.url, "--server-pid", String(node.pid)]));
  console.log(`loadtest ${args.join(" ")}`);
  const child = spawn(process.env.LOADTEST_BIN, args, { stdio: ["ignore", "inherit", "inherit"] });
  const exit = new Promise((done) => child.once("exit", done));
  const watch = await lateJoin(guest, room, seconds);
  const code = await exit;
  await pause(300);
  watch();
  console.log(`late join on ${guest.name}, owner ${owner.name}: the last ${LAST}, then live, no gap, no repeat`);
  assert.equal(code, 0, `loadtest ended with ${code}`);
}

/** Joins half-way; answers a function that judges what came, to be called at the end. */
async function lateJoin(node, room, seconds) {
  const witness = await connect(node.url);
  const all = received(witness, "m");
  await join(witness, room);
  await pause((seconds * 1_000) / 2);
  const late = await connect(node.url);
  const live = received(late, "m");
  const answer = await join(late, room, { history: { last: LAST } });
  return () => {
    assert.equal(answer.history.length, LAST);
    const seen = [...answer.history.map((item) => item.args[0]), ...live];
    const from = all.indexOf(seen[0]);
    assert.notEqual(from, -1, "the first item of the history was never seen live");
    assert.equal(seen.length, all.length - from);
    assert.deepEqual(seen, all.slice(from));
    assert.equal(new Set(all).size, all.length, "a message came twice");
  };
}
