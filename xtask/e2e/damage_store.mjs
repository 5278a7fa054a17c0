// `cargo xtask damage-store`: every case of lib/damage.mjs on real processes. Exits 0 when every case held.

import { parseArgs } from "node:util";
import { closeAll } from "./lib/client.mjs";
import { CASES, runCase } from "./lib/damage.mjs";

const { values } = parseArgs({ options: { only: { type: "string", default: "" } } });
const chosen = CASES.filter((one) => one.name.includes(values.only));
const count = { held: 0, skipped: 0, failed: 0 };
for (const one of chosen) {
  try {
    const outcome = await runCase(one);
    count[outcome.startsWith("SKIPPED") ? "skipped" : "held"] += 1;
    console.log(`${one.name}: ${outcome}`);
  } catch (error) {
    count.failed += 1;
    console.error(`${one.name}: FAILED: ${error.message}`);
  }
  closeAll();
}
console.log(`${chosen.length} cases: ${count.held} held, ${count.failed} failed, ${count.skipped} skipped`);
process.exitCode = count.failed > 0 || chosen.length === 0 ? 1 : 0;
