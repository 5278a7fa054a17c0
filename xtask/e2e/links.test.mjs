// The links between three processes: bad lines lose nothing, the cluster key changes under way, a twin steps back.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { copyFileSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as path } from "node:path";
import { after, before, describe, test } from "node:test";
import { closeAll, connect, freshRoom, join, range, received } from "./lib/client.mjs";
import { Node, freePorts, startCluster } from "./lib/cluster.mjs";
import { pause, until } from "./lib/wait.mjs";

const ACK_MS = 2_000;
const SETTLED_MS = 30_000;

/** Publishes until `stop()`, each message again with the same id until it is acknowledged; resolves to what was. */
function publishing(socket, room, name) {
  let going = true;
  const acked = [];
  const run = async () => {
    for (let n = 0; going; n += 1) {
      const [message, id] = [`${name}:${n}`, `${room}-${name}-${n}`];
      for (let answer; !answer?.ok; ) {
        const request = { room, event: "m", args: [message], id };
        answer = await socket.timeout(ACK_MS).emitWithAck("room:publish", request).catch(() => undefined);
      }
      acked.push(message);
      await pause(5);
    }
    return acked;
  };
  const ran = run();
  return { acked, stop: () => ((going = false), ran) };
}

/** Members and publishers on every node; `work` happens meanwhile. What was acknowledged came once, in order, everywhere. */
async function nothingIsLost(nodes, work) {
  const room = freshRoom();
  const members = await Promise.all(nodes.map((node) => connect(node.url, { transports: ["websocket"] })));
  const lists = members.map((member) => received(member, "m"));
  const gaps = members.map((member) => received(member, "room:gap"));
  await Promise.all(members.map((member) => join(member, room)));
  const publishers = nodes.map((node) => connect(node.url, { transports: ["websocket"] }));
  const running = (await Promise.all(publishers)).map((socket, who) => publishing(socket, room, `p${who}`));
  await work(running);
  const acked = await Promise.all(running.map((publisher) => publisher.stop()));
  const total = acked.flat().length;
  await until(
    () => lists.every((list) => list.length >= total),
    SETTLED_MS,
    () => `${total} messages at every member, got ${lists.map((list) => list.length)}`,
  );
  await pause(200);
  for (const list of lists) {
    assert.equal(new Set(list).size, list.length, "a message came twice");
    assert.deepEqual(list, lists[0], "one order for all");
    acked.forEach((sent, who) => assert.deepEqual(list.filter((message) => message.startsWith(`p${who}:`)), sent));
  }
  assert.deepEqual(gaps, [[], [], []], "continuity was never lost");
  return total;
}

describe("bad lines between three processes", () => {
  let cluster;
  before(async () => (cluster = await startCluster(3, [], {}, undefined, 20_261_125)));
  after(async () => {
    closeAll();
    await cluster?.stop();
  });
  const all = (faults) => cluster.lines.forEach((line) => line.set(faults));
  const sum = (name) => Promise.all(cluster.nodes.map((node) => node.metric(name))).then((n) => n.reduce((a, b) => a + b));

  for (const [what, faults, ms] of [
    ["one datagram in a hundred twice, one overtaken, 20 ms ± 5", { repeated: 0.01, overtaken: 0.01, delay: 20, jitter: 10 }, 3_000],
    ["one datagram in ten lost", { lost: 0.1, delay: 2 }, 4_000],
  ]) {
    test(`${what}: nothing lost, repeated or out of order, and nobody is given up`, async () => {
      const before = await Promise.all(cluster.nodes.map((node) => node.cluster()));
      all(faults);
      try {
        const total = await nothingIsLost(cluster.nodes, () => pause(ms));
        console.log(`${total} messages; datagrams ${JSON.stringify(cluster.lines.map((line) => line.counts))}`);
      } finally {
        all({});
      }
      const now = await Promise.all(cluster.nodes.map((node) => node.cluster()));
      assert.deepEqual(now.map((report) => report.view), before.map((report) => report.view), "the members never changed");
    });
  }

  test("lines that are cut for 300 ms of every second lose nothing", async () => {
    const total = await nothingIsLost(cluster.nodes, async () => {
      for (let turn = 0; turn < 6; turn += 1) {
        all({ cut: true });
        await pause(300);
        all({});
        await pause(700);
      }
    });
    console.log(`${total} messages over a flapping line`);
  });

  test("links that break in the middle of traffic and come back lose nothing", async () => {
    const broken = await sum("starling_mesh_reconnects_total");
    const total = await nothingIsLost(cluster.nodes, async () => {
      // Another key and back: every link is closed by its node while frames are queued and in flight.
      for (let turn = 0; turn < 2; turn += 1) {
        const { key } = cluster;
        copyFileSync(key, `${key}.previous`);
        replace(key, randomBytes(32).toString("hex"));
        await reloads(cluster.nodes, 2 * turn + 1);
        rmSync(`${key}.previous`);
        await reloads(cluster.nodes, 2 * turn + 2);
      }
    });
    // Three links, two turns, and both ends count.
    assert.ok((await sum("starling_mesh_reconnects_total")) >= broken + 12, "links broke under the traffic");
    console.log(`${total} messages while the cluster key was changed twice`);
  });

  test("a process with the old key is refused, and both sides say why", async () => {
    const folder = mkdtempSync(path(tmpdir(), "starling-e2e-"));
    const [ports] = await freePorts(1);
    const key = path(folder, "cluster.key");
    writeFileSync(key, randomBytes(32).toString("hex"), { mode: 0o600 });
    const flags = ["--node", "gw-7", "--data-dir", folder, "--cluster-key-file", key];
    flags.push("--listen", `127.0.0.1:${ports.client}`, "--admin-listen", `127.0.0.1:${ports.admin}`);
    flags.push("--mesh-listen", `127.0.0.1:${ports.mesh}`, "--seed", `127.0.0.1:${cluster.lines[0].port}`);
    const stranger = new Node("gw-7", flags, ports, {}, cluster.nodes[0].binary);
    const refusals = () => cluster.nodes[0].metric("starling_mesh_refused_total", { reason: "key" });
    const before = await refusals();
    const started = stranger.start();
    try {
      const says = (node, words) => node.log.some((line) => line.includes(words));
      await until(() => says(stranger, "does not share our cluster key"), 8_000, () => "the stranger to say why");
      await until(() => says(cluster.nodes[0], "without our cluster key"), 8_000, () => "the node to say why");
      assert.ok((await refusals()) > before);
    } finally {
      await stranger.stop("SIGKILL");
      await started.catch(() => {});
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

/** Puts a secret in the place of a file at once, as Kubernetes and careful people do. */
function replace(file, secret) {
  writeFileSync(`${file}.new`, secret, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

/** Waits until every node took over the key files so many times. */
async function reloads(nodes, times) {
  const counted = async (node) => (await node.metric("starling_cluster_key_reloads_total", { result: "replaced" })) >= times;
  for (const node of nodes) await until(() => counted(node), 10_000, () => `${node.name} to read its key again`);
}

describe("a node that is started twice", () => {
  let cluster;
  let twin;
  before(async () => (cluster = await startCluster(3)));
  after(async () => {
    closeAll();
    await twin?.stop("SIGKILL");
    await cluster?.stop();
  });

  test("the second process ends with both addresses and advice; the first is not disturbed, however often it is tried", async () => {
    const [ports] = await freePorts(1);
    const first = cluster.nodes[2];
    const views = await Promise.all(cluster.nodes.map((node) => node.cluster()));
    const own = (flag) => first.flags[first.flags.indexOf(flag) + 1];
    const flags = ["--node", "gw-2", "--data-dir", path(cluster.folder, "twin"), "--cluster-key-file", cluster.key];
    flags.push("--listen", `127.0.0.1:${ports.client}`, "--admin-listen", `127.0.0.1:${ports.admin}`);
    flags.push("--mesh-listen", `127.0.0.1:${ports.mesh}`);
    for (const node of cluster.nodes.slice(0, 2)) flags.push("--seed", node.flags[node.flags.indexOf("--mesh-listen") + 1]);
    const total = await nothingIsLost(cluster.nodes, async () => {
      for (let times = 0; times < 2; times += 1) {
        twin = new Node("gw-2", flags, ports, {}, first.binary);
        await assert.rejects(twin.start());
        const { code } = await twin.exited;
        const last = twin.log.join("\n");
        assert.equal(code, 1, last);
        for (const part of [own("--mesh-listen"), `127.0.0.1:${ports.mesh}`, "started twice", "run it once"]) {
          assert.ok(last.includes(part), `${part} is not in\n${last}`);
        }
      }
    });
    console.log(`${total} messages while a twin was started twice; it said:\n${twin.log.at(-1)}`);
    const now = await Promise.all(cluster.nodes.map((node) => node.cluster()));
    assert.deepEqual(now.map((report) => report.view), views.map((report) => report.view));
    assert.ok(first.end === undefined, "the first runs on");
  });

  test("a process that was killed is replaced by its restart at once", async () => {
    const victim = cluster.nodes[2];
    await victim.stop("SIGKILL");
    const start = performance.now();
    await victim.start();
    const linked = async () => (await cluster.nodes[0].cluster()).links.filter((link) => link.state === "up").length === 2;
    await until(linked, 5_000, () => "the link to the restarted process");
    console.log(`linked again ${Math.round(performance.now() - start)} ms after the restart`);
    assert.ok(range(0, 3).every((n) => cluster.nodes[n].end === undefined));
  });
});
