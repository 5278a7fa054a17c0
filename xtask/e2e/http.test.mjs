// What is served over plain HTTP: the client bundle, cross-origin answers, health, metrics, the cluster's state.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { connect, freshRoom, join } from "./lib/client.mjs";
import { fetchRaw } from "./lib/raw.mjs";
import { onClusters, onOneAndThree } from "./lib/suite.mjs";
import { until } from "./lib/wait.mjs";

onClusters([1], "the client bundle", (nodes) => {
  const bundle = () => `${nodes()[0].url}/socket.io/socket.io.js`;

  test("is JavaScript with a strong tag", async () => {
    const answer = await fetchRaw(bundle(), { headers: { "accept-encoding": "identity" } });
    assert.equal(answer.status, 200);
    assert.match(answer.headers["content-type"], /javascript/);
    assert.match(answer.headers.etag, /^"[^"]+"$/);
    assert.match(answer.body.toString("utf8", 0, 200), /Socket\.IO v4/);
  });

  test("is not sent again to a client that has it", async () => {
    const { headers } = await fetchRaw(bundle(), {});
    const again = await fetchRaw(bundle(), { headers: { "if-none-match": headers.etag } });
    assert.equal(again.status, 304);
    assert.equal(again.body.length, 0);
    const stale = await fetchRaw(bundle(), { headers: { "if-none-match": '"another"' } });
    assert.equal(stale.status, 200);
  });

  test("is compressed for a client that says it can read that", async () => {
    const plain = await fetchRaw(bundle(), { headers: { "accept-encoding": "identity" } });
    const packed = await fetchRaw(bundle(), { headers: { "accept-encoding": "gzip, br" } });
    assert.equal(packed.headers["content-encoding"], "gzip");
    assert.match(packed.headers.vary ?? "", /accept-encoding/i);
    assert.ok(packed.body.length < plain.body.length / 2, `${packed.body.length} of ${plain.body.length}`);
    assert.deepEqual(gunzipSync(packed.body), plain.body);
  });

  test("comes in every form of the stock package", async () => {
    for (const name of ["socket.io.min.js", "socket.io.esm.min.js", "socket.io.msgpack.min.js"]) {
      const answer = await fetchRaw(`${nodes()[0].url}/socket.io/${name}`, {});
      assert.equal(answer.status, 200, name);
    }
    assert.equal((await fetchRaw(`${nodes()[0].url}/socket.io/nothing.js`, {})).status, 404);
  });
});

onClusters([1], "another origin", (nodes) => {
  const origin = "http://app.example";
  const handshake = () => `${nodes()[0].url}/socket.io/?EIO=4&transport=polling`;

  test("is allowed when it is listed, in answers and in errors", async () => {
    const answer = await fetchRaw(handshake(), { headers: { origin } });
    assert.equal(answer.status, 200);
    assert.equal(answer.headers["access-control-allow-origin"], origin);
    const error = await fetchRaw(`${handshake()}&sid=unknown`, { headers: { origin } });
    assert.equal(error.status, 400);
    assert.deepEqual(JSON.parse(error.body), { code: 1, message: "Session ID unknown" });
    assert.equal(error.headers["access-control-allow-origin"], origin);
  });

  test("asks first and gets an empty answer", async () => {
    const wish = { "access-control-request-method": "POST", "access-control-request-headers": "content-type" };
    const answer = await fetchRaw(handshake(), { method: "OPTIONS", headers: { origin, ...wish } });
    assert.equal(answer.status, 204);
    assert.equal(answer.headers["access-control-allow-origin"], origin);
    assert.match(answer.headers["access-control-allow-methods"] ?? "", /POST/);
  });

  test("is refused when it is not listed", async () => {
    const answer = await fetchRaw(handshake(), { headers: { origin: "http://evil.example" } });
    assert.notEqual(answer.headers["access-control-allow-origin"], "http://evil.example");
    assert.notEqual(answer.headers["access-control-allow-origin"], "*");
  });
}, [], { STARLING_SERVER__ALLOWED_ORIGINS: "http://app.example" });

onOneAndThree("the admin port", (nodes, size) => {
  test("answers the three probes with named checks", async () => {
    for (const probe of ["livez", "readyz", "startupz"]) {
      const answer = await fetch(`${nodes()[0].admin}/${probe}`);
      assert.equal(answer.status, 200, probe);
      assert.equal(typeof (await answer.json()), "object", probe);
    }
  });

  test("describes the cluster the same way on every node", async () => {
    const reports = await Promise.all(nodes().map((node) => node.cluster()));
    for (const report of reports) {
      assert.deepEqual(report.members.map((member) => member.node).sort(), nodes().map((node) => node.name));
      assert.ok(report.members.every((member) => member.state === "alive"));
      assert.equal(report.members.reduce((sum, member) => sum + member.slots, 0), 4096);
      assert.equal(report.links.length, size - 1);
      assert.equal(typeof report.safe_to_lose_one, "boolean");
    }
    const slots = (report) => report.members.map((member) => [member.node, member.slots]).sort();
    for (const report of reports) assert.deepEqual(slots(report), slots(reports[0]));
  });

  test("counts connections, members and deliveries", async () => {
    const [node] = nodes();
    const room = freshRoom();
    const [sender, member] = [await connect(node.url, { transports: ["websocket"] }), await connect(node.url)];
    await join(member, room);
    const before = await node.metric("starling_deliveries_total");
    await sender.timeout(5_000).emitWithAck("room:publish", { room, event: "m", args: [1] });
    const counted = async () => (await node.metric("starling_deliveries_total")) - before === 1;
    await until(counted, 5_000, () => "one delivery to be counted");
    assert.ok((await node.metric("starling_connections")) >= 2);
    assert.ok((await node.metric("process_resident_memory_bytes")) > 1e6);
  });

  test("serves only metrics that the reference explains", async () => {
    const text = await (await fetch(`${nodes()[0].admin}/metrics`)).text();
    const served = [...text.matchAll(/^([a-z_]+)(?:\{.*\})? \S+$/gm)].map(([, name]) => name);
    assert.ok(served.length > 40, `${served.length} samples`);
    const page = readFileSync(new URL("../../docs/reference/metrics.md", import.meta.url), "utf8");
    const unexplained = [...new Set(served)].filter((name) => !page.includes(`\`${name}\``));
    assert.deepEqual(unexplained, []);
  });

  test("does not serve what it does not have", async () => {
    const answer = await fetch(`${nodes()[0].admin}/api/nothing`);
    assert.equal(answer.status, 404);
    assert.equal(typeof (await answer.json()).code, "string");
  });
});
