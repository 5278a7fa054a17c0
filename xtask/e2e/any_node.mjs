// `cargo xtask any-node`: three processes behind a balancer without affinity, and many clients of each kind that talk for a
// while. Exits 0 when everything arrived once and in order, nobody was disconnected and no request was refused.

import assert from "node:assert/strict";
import { parseArgs } from "node:util";
import { balancers, before } from "./lib/balancers.mjs";
import { closeAll, MODES, range } from "./lib/client.mjs";
import { startCluster } from "./lib/cluster.mjs";
import { scatter } from "./lib/scatter.mjs";
import { talk } from "./lib/traffic.mjs";

const { values } = parseArgs({
  options: {
    clients: { type: "string", default: "300" },
    seconds: { type: "string", default: "60" },
    every: { type: "string", default: "1000" },
  },
});
const [clients, seconds, every] = [values.clients, values.seconds, values.every].map(Number);
const ROOM = 10;
const failures = [];
for (const [name, start] of Object.entries({ "every request elsewhere": scatter, ...balancers })) {
  const cluster = await startCluster(3, [], before);
  const proxy = await start(cluster.nodes);
  try {
    const modes = Object.values(MODES);
    const options = range(0, clients).map((n) => modes[n % modes.length]);
    const { sent, received } = await talk(proxy.url, options, { together: ROOM, every, ms: seconds * 1_000 });
    const sum = async (labels) => {
      const figures = cluster.nodes.map((node) => node.metric("starling_forwarded_requests_total", labels));
      return (await Promise.all(figures)).reduce((total, figure) => total + figure, 0);
    };
    assert.deepEqual(proxy.refusals ?? [], []);
    const unknown = cluster.nodes.map((node) => node.metric("starling_handshake_errors_total", { code: "1" }));
    assert.deepEqual(await Promise.all(unknown), [0, 0, 0], "sessions that were unknown");
    console.log(
      `${name}: ${clients} clients, ${seconds} s: ${sent} sent, ${received} received, 0 lost, 0 repeated, 0 cut; carried: ` +
        `${await sum({ kind: "poll" })} polls, ${await sum({ kind: "post" })} posts, ${await sum({ kind: "upgrade" })} upgrades`,
    );
  } catch (error) {
    console.error(`${name}: FAILED: ${error.message}`);
    failures.push(name);
  } finally {
    closeAll();
    await proxy.close();
    await cluster.stop();
  }
}
process.exit(failures.length === 0 ? 0 : 1);
