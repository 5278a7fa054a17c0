// nginx and HAProxy in round robin, as the documentation configures them: every kind of client, nothing lost, nobody cut.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { balancers, before } from "./lib/balancers.mjs";
import { closeAll, MODES } from "./lib/client.mjs";
import { startCluster } from "./lib/cluster.mjs";
import { talk } from "./lib/traffic.mjs";

for (const [name, start] of Object.entries(balancers)) {
  describe(`behind ${name}`, () => {
    test("clients of every kind talk to each other", async () => {
      const cluster = await startCluster(3, [], before);
      const proxy = await start(cluster.nodes).catch(async (error) => {
        await cluster.stop();
        throw error;
      });
      try {
        const options = Object.values(MODES).flatMap((mode) => [mode, mode, mode]);
        await talk(proxy.url, options, { together: options.length, every: 100, ms: 3_000 });
        const carried = cluster.nodes.map((node) => node.metric("starling_forwarded_requests_total", { result: "answered" }));
        assert.ok((await Promise.all(carried)).reduce((sum, n) => sum + n) > 50, "requests reached other nodes");
        const unknown = cluster.nodes.map((node) => node.metric("starling_handshake_errors_total", {}));
        assert.deepEqual(await Promise.all(unknown), [0, 0, 0]);
      } finally {
        closeAll();
        await proxy.close();
        await cluster.stop();
      }
    });
  });
}
