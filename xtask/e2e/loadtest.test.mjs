// The load generator agrees with the server: a small run, judged by its own report.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { onOneAndThree } from "./lib/suite.mjs";

// A shared machine may be too slow to send on time; the run then calls itself invalid, and still counts what arrived.
const ENDS = [0, 98];

onOneAndThree("loadtest", (nodes, size) => {
  test("a broadcast to 60 members loses, repeats and reorders nothing", async () => {
    const targets = nodes().flatMap((node) => ["--target", node.url]);
    const load = ["--members", "60", "--publishers", String(size), "--rate", "40", "--duration", "3s"];
    const run = promisify(execFile)(process.env.LOADTEST_BIN, ["run", "broadcast", ...targets, ...load, "--json", "-"]);
    const { code, stdout, stderr } = await run.then((out) => ({ ...out, code: 0 }), (error) => error);
    assert.ok(ENDS.includes(code), `exit ${code}\n${stdout}\n${stderr}`);
    const report = JSON.parse(stdout.slice(stdout.indexOf("{")));
    const figures = JSON.stringify(report);
    for (const figure of ["lost", "duplicated", "reordered"]) {
      const values = [...figures.matchAll(new RegExp(`"${figure}":(\\d+)`, "g"))].map(([, value]) => Number(value));
      assert.ok(values.length > 0, `no figure "${figure}" in ${figures}`);
      assert.ok(values.every((value) => value === 0), `${figure}: ${values}`);
    }
  });

  test("clients that join while their room is published to see history and then live, without gap or repeat", async () => {
    const load = ["--clients", "30", "--rate", "500", "--seconds", "2", "--history", "20", "--live", "200"];
    const run = promisify(execFile)(process.env.LOADTEST_BIN, ["joins", "--target", new URL(nodes()[0].url).host, ...load]);
    const { stdout, stderr } = await run.catch((error) => error);
    // A shared machine may be too slow for the rate, and the run says so by its code; what was seen must be whole anyway.
    const { clients, whole, refused, failures } = JSON.parse(stdout || "{}");
    assert.deepEqual({ clients, whole, refused, failures }, { clients: 30, whole: 30, refused: 0, failures: [] }, stderr);
  });
});
