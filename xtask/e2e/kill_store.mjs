// `cargo xtask kill-store`: kill -9 in a burst of publishes, again and again. Exits 0 when every round held.

import { parseArgs } from "node:util";
import { closeAll } from "./lib/client.mjs";
import { startCluster } from "./lib/cluster.mjs";
import { SETTINGS, WINDOW_MS, killRound } from "./lib/kill.mjs";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "20" } } });
const ROUNDS = Number(values.rounds);

const cluster = await startCluster(1, [], SETTINGS);
const [node] = cluster.nodes;
const total = { acked: 0, stored: 0, lost: 0, worstMs: 0 };
try {
  for (let number = 1; number <= ROUNDS; number += 1) {
    const afterMs = 300 + Math.random() * 900;
    const round = await killRound(node, afterMs);
    console.log(
      `round ${number}: killed after ${afterMs.toFixed(0)} ms, ${round.acked} acked, ${round.stored} stored, ` +
        `${round.lost} acked and lost, the oldest of them ${round.worstMs.toFixed(0)} ms before the kill`,
    );
    for (const key of ["acked", "stored", "lost"]) total[key] += round[key];
    total.worstMs = Math.max(total.worstMs, round.worstMs);
  }
  console.log(
    `${ROUNDS} rounds: ${total.acked} acked, ${total.lost} lost, none older than ${WINDOW_MS} ms ` +
      `(worst ${total.worstMs.toFixed(0)} ms); every room said so with a new epoch`,
  );
} catch (error) {
  console.error(`FAILED: ${error.message}\n${node.log.slice(-20).join("\n")}`);
  process.exitCode = 1;
} finally {
  closeAll();
  await cluster.stop();
}
