// One suite, run against one process and against three.

import { after, before, describe } from "node:test";
import { closeAll } from "./client.mjs";
import { startCluster } from "./cluster.mjs";

/** Declares the tests of `body` for clusters of these sizes; `body` gets a function that answers the running nodes. */
export function onClusters(sizes, title, body, flags = [], environment = {}) {
  for (const size of sizes) {
    describe(`${title}, ${size === 1 ? "one process" : `${size} processes`}`, () => {
      let cluster;
      before(async () => {
        cluster = await startCluster(size, flags, environment);
      });
      after(async () => {
        closeAll();
        await cluster?.stop();
      });
      body(() => cluster.nodes, size);
    });
  }
}

export const onOneAndThree = (title, body) => onClusters([1, 3], title, body);
