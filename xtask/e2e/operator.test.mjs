// What an operator does beside a node: history carried from one data directory to another, and the doctor.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, existsSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join as path } from "node:path";
import { after, before, describe, test } from "node:test";
import { ask, closeAll, connect, freshRoom, join, publish, range } from "./lib/client.mjs";
import { freePorts, startCluster, starling } from "./lib/cluster.mjs";
import { pause } from "./lib/wait.mjs";

const EXIT_OK = 0;
const EXIT_FAILED = 1;

/** Runs the binary to its end. */
function run(args, env = {}) {
  const { status, stdout, stderr } = spawnSync(starling(), args, { encoding: "utf8", timeout: 60_000, env: { ...process.env, ...env } });
  return { status, stdout, stderr };
}

/** The data directory of a node, and how to run it on another one. */
const dataOf = (node) => node.flags[node.flags.indexOf("--data-dir") + 1];
const on = (node, dir) => (node.flags[node.flags.indexOf("--data-dir") + 1] = dir);

describe("history is carried from a node that stopped to one that starts", () => {
  let cluster, node, file, lobby, bytes, written;
  const binary = Buffer.from([0, 1, 255, 10]);

  before(async () => {
    cluster = await startCluster(1);
    [node] = cluster.nodes;
    file = path(cluster.folder, "history.jsonl");
    [lobby, bytes] = [freshRoom(), freshRoom()];
    const writer = await connect(node.url);
    for (const n of range(0, 30)) await publish(writer, lobby, "m", [n, { text: "é\n\"" }]);
    await publish(writer, bytes, "b", [binary, { deep: [binary] }]);
    const chat = await connect(`${node.url}/chat`);
    await publish(chat, lobby, "m", ["of another namespace"]);
    written = await ask(writer, "room:history", { room: lobby, limit: 100 });
    assert.equal(written.items.length, 30);
  });
  after(async () => {
    closeAll();
    await cluster?.stop();
  });

  test("while the node runs neither way is gone, and the reason is said", () => {
    writeFileSync(path(cluster.folder, "some.jsonl"), "");
    for (const args of [["export", file], ["import", path(cluster.folder, "some.jsonl")]]) {
      const { status, stderr } = run(["history", ...args, "--data-dir", dataOf(node)]);
      assert.equal(status, EXIT_FAILED);
      assert.match(stderr, /^error: .* is in use by a running node: stop it first\n$/);
    }
    assert.ok(!existsSync(file));
  });

  test("export tells every message in words and leaves the store as it was", async () => {
    await node.stop("SIGTERM");
    for (const attempt of [1, 2]) {
      const out = path(cluster.folder, `attempt-${attempt}.jsonl`);
      const { status, stdout, stderr } = run(["history", "export", out, "--data-dir", dataOf(node)]);
      assert.deepEqual([status, stdout], [EXIT_OK, "exported 32 messages of 3 rooms; their epochs go on\n"], stderr);
    }
    const [first, second] = [1, 2].map((attempt) => readFileSync(path(cluster.folder, `attempt-${attempt}.jsonl`), "utf8"));
    const body = (text) => text.split("\n").slice(1).join("\n");
    assert.equal(body(first), body(second), "an export must not change what it exports");
    writeFileSync(file, first);
    assert.equal(statSync(path(cluster.folder, "attempt-1.jsonl")).mode & 0o777, 0o600);
    const lines = first.trimEnd().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual([lines[0].starling_history, lines[0].clean, lines.at(-1).end, lines.at(-1).messages], [1, true, true, 32]);
    const told = lines.filter((line) => line.namespace === "/" && line.room === lobby);
    assert.deepEqual(told.map(({ offset, epoch, event, args, time_ms }) => ({ offset, epoch, event, args, time_ms })), written.items);
    const encoded = { $base64: binary.toString("base64") };
    assert.deepEqual(lines.find((line) => line.room === bytes).args, [encoded, { deep: [encoded] }]);
    const refused = run(["history", "export", file, "--data-dir", dataOf(node)]);
    assert.match(refused.stderr, /exists: it is left alone/);
  });

  test("what is cut short, garbled or not a file is refused with its line, and nothing of it is there", async () => {
    const text = readFileSync(file, "utf8");
    const lines = text.split("\n");
    const at = lines.findIndex((line) => line.includes('"frame"'));
    const without = (index) => lines.filter((_, other) => other !== index).join("\n");
    const flipped = lines.with(at, lines[at].replace(/"frame":"(.{40})./, (_, kept) => `"frame":"${kept}!`)).join("\n");
    const moved = lines.with(at, lines[at].replace(/"room":"[^"]*"/, '"room":"elsewhere"')).join("\n");
    const cases = {
      "no end line": [lines.slice(0, -2).join("\n") + "\n", /no end line: the file was cut short/],
      "half a line": [text.slice(0, -20), new RegExp(`line ${lines.length - 1} is cut short`)],
      "a line left out": [without(at), new RegExp(`line ${lines.length - 2} ends 32 messages`)],
      "a byte that fell over": [flipped, new RegExp(`line ${at + 1} has a "frame" that is no base64`)],
      "a room by another name": [moved, new RegExp(`line ${at + 1} names another room`)],
      "no header": [without(0), /line 1 must be the header/],
      "a picture": ["\x89PNG\r\n\x1a\n", /line 1 /],
      "nothing": ["", /no end line/],
    };
    for (const [name, [content, says]] of Object.entries(cases)) {
      const [broken, target] = [path(cluster.folder, "broken.jsonl"), path(cluster.folder, "untouched")];
      writeFileSync(broken, content);
      const { status, stderr } = run(["history", "import", broken, "--data-dir", target]);
      assert.equal(status, EXIT_FAILED, name);
      assert.match(stderr, says, name);
      assert.doesNotMatch(stderr, /panicked/);
      assert.ok(!existsSync(target), `${name}: nothing may be begun`);
    }
  });

  test("import fills an empty directory, and a node serves from it what the first one served", async () => {
    const target = path(cluster.folder, "moved");
    const { status, stdout, stderr } = run(["history", "import", file, "--data-dir", target, "--json"]);
    assert.equal(status, EXIT_OK, stderr);
    assert.deepEqual(JSON.parse(stdout), { rooms: 3, messages: 32, slots: JSON.parse(readFileSync(file, "utf8").trimEnd().split("\n").at(-1)).slots, clean: true });
    const again = run(["history", "import", file, "--data-dir", target]);
    assert.equal(again.status, EXIT_FAILED);
    assert.match(again.stderr, /the store has messages in \d+ of \d+ slots already/);

    on(node, target);
    await node.start();
    const late = await connect(node.url);
    const joined = await join(late, lobby, { history: { last: 20 } });
    assert.deepEqual(joined.history, written.items.slice(-20));
    assert.equal(joined.epoch, written.epoch);
    const cursor = written.items[9];
    const missed = await join(late, lobby, { history: { since: cursor.offset, epoch: cursor.epoch } });
    assert.equal(missed.recovered, true);
    assert.deepEqual(missed.history, written.items.slice(10));
    const whole = await ask(late, "room:history", { room: bytes });
    assert.deepEqual(whole.items[0].args, [binary, { deep: [binary] }]);
    const next = await publish(late, lobby, "m", ["after"]);
    assert.equal(next.epoch, written.epoch);
    assert.ok(next.offset > written.items.at(-1).offset);
  });

  test("a file that came back is the file that was carried, and the message after it is in it", async () => {
    await node.stop("SIGTERM");
    const { status, stdout } = run(["history", "export", "--data-dir", dataOf(node)]);
    assert.equal(status, EXIT_OK);
    const messages = (text) => text.trimEnd().split("\n").filter((line) => line.includes('"frame"')).sort();
    const [carried, back] = [messages(readFileSync(file, "utf8")), messages(stdout)];
    assert.equal(back.length, carried.length + 1);
    assert.deepEqual(back.filter((line) => !carried.includes(line)).map((line) => JSON.parse(line).args), [["after"]]);
  });

  test("after a hard kill an export promises nothing: the rooms get new epochs", async () => {
    await node.start();
    const writer = await connect(node.url);
    const last = await publish(writer, lobby, "m", ["before the kill"]);
    await pause(500);
    await node.stop("SIGKILL");
    const [killed, target] = [path(cluster.folder, "killed.jsonl"), path(cluster.folder, "killed")];
    const exported = run(["history", "export", killed, "--data-dir", dataOf(node)]);
    assert.equal(exported.stdout, "exported 34 messages of 3 rooms; not closed cleanly, so they get new epochs\n", exported.stderr);
    assert.equal(run(["history", "import", killed, "--data-dir", target]).status, EXIT_OK);
    on(node, target);
    await node.start();
    const joined = await join(await connect(node.url), lobby, { history: { since: last.offset, epoch: last.epoch } });
    assert.equal(joined.recovered, false);
    assert.notEqual(joined.epoch, last.epoch);
    assert.deepEqual(joined.history.at(-1).args, ["before the kill"]);
  });
});

describe("doctor", () => {
  let cluster, node;
  before(async () => (cluster = await startCluster(2)));
  after(async () => {
    closeAll();
    await cluster?.stop();
  });

  /** What the doctor finds; `about` picks one finding. */
  function examine(args, env = {}) {
    const { status, stdout, stderr } = run(["doctor", "--json", ...args], env);
    assert.equal(stderr, "");
    const { good, findings } = JSON.parse(stdout);
    assert.equal(status, good ? EXIT_OK : EXIT_FAILED, stdout);
    for (const { state, to_do, found } of findings) assert.equal(to_do === "", state === "ok", `${found}: ${to_do}`);
    return Object.assign((about) => findings.filter((finding) => finding.about === about), { good });
  }

  /** Flags of a node that could start here. */
  async function free(extra = []) {
    const [ports] = await freePorts(1);
    const at = (port) => `127.0.0.1:${port}`;
    return ["--listen", at(ports.client), "--admin-listen", at(ports.admin), "--mesh-listen", at(ports.mesh), "--data-dir", path(cluster.folder, "none"), ...extra];
  }

  test("a machine that is in order is told so, in lines for people too", async () => {
    const flags = await free();
    const found = examine(flags);
    assert.ok(found.good);
    assert.match(found("client port")[0].found, /is free/);
    assert.match(found("store")[0].found, /none yet/);
    const { stdout } = run(["doctor", ...flags]);
    assert.match(stdout, /^ok {4}configuration {4}it is good$/m);
  });

  test("beside a running node everything that it holds is in order, and its seed answers", () => {
    [node] = cluster.nodes;
    const found = examine(node.flags);
    for (const about of ["client port", "admin port", "mesh port"]) assert.match(found(about)[0].found, /held by the node that runs here/);
    assert.match(found("store")[0].found, /in use by a running node/);
    assert.match(found("seed")[0].found, /answers from 127\.0\.0\.1:\d+ in \d+ ms/);
  });

  test("a port that somebody else has is a failure that says how to find them", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await new Promise((listening) => other.once("listening", listening));
    const { port } = other.address();
    const flags = await free();
    flags[1] = `127.0.0.1:${port}`;
    const taken = examine(flags);
    assert.deepEqual([taken.good, taken("client port")[0].state], [false, "fail"]);
    assert.match(taken("client port")[0].to_do, new RegExp(`sport = :${port}`));
    other.close();
    const elsewhere = await free(["--config", path(cluster.folder, "public.toml")]);
    writeFileSync(elsewhere.at(-1), '[auth]\nanonymous = true\n[[namespace]]\nname = "/"\n');
    elsewhere[1] = "192.0.2.1:3000";
    assert.match(examine(elsewhere)("client port")[0].found, /is not an address of this machine/);
  });

  test("a configuration that is wrong is a failure for each mistake", async () => {
    const found = examine(await free(["--shards", "many"]), { STARLING_SERVER__LISTN: "x" });
    assert.deepEqual(found("configuration").map(({ state }) => state), ["fail", "fail"]);
    assert.match(found("configuration")[0].to_do, /did you mean "listen"/);
  });

  test("seeds that do not resolve fail; seeds that are silent or refuse are warned about", async () => {
    const key = path(cluster.folder, "other.key");
    writeFileSync(key, "0123456789abcdef0123456789abcdef", { mode: 0o600 });
    const [ports] = await freePorts(1);
    const seeds = ["--seed", "nowhere.invalid:3002", "--seed", `127.0.0.1:${ports.mesh}`, "--node", "x-9", "--cluster-key-file", key];
    const found = examine(await free(seeds));
    assert.deepEqual(found("seed").map(({ state }) => state), ["fail", "warn"]);
    assert.match(found("seed")[0].found, /nowhere\.invalid:3002 cannot be resolved/);
    assert.match(found("seed")[1].found, /refuses: nobody listens there/);
    chmodSync(key, 0o644);
    const open = examine(await free(["--node", "x-9", "--cluster-key-file", key]));
    assert.deepEqual([open.good, open("configuration")[0].state], [true, "warn"]);
  });

  test("a data directory that cannot be one, or cannot be written, is a failure", async () => {
    const file = path(cluster.folder, "a-file");
    writeFileSync(file, "");
    for (const [dir, says] of [[file, /is not a directory/], ["/proc/none", /cannot be written/]]) {
      const flags = await free();
      flags[flags.indexOf("--data-dir") + 1] = dir;
      const found = examine(flags);
      assert.equal(found.good, false);
      assert.match(found("data directory")[0].found, says);
    }
  });

  test("too few descriptors are told with the number that is needed", async () => {
    const flags = await free();
    const doctor = (count) => spawnSync("sh", ["-c", `ulimit -n ${count} && exec "$@"`, "sh", starling(), "doctor", "--json", ...flags], { encoding: "utf8" });
    const few = JSON.parse(doctor(256).stdout).findings.find(({ about }) => about === "descriptors");
    assert.equal(few.state, "fail");
    assert.match(few.found, /256 files may be open, limits\.connections = 20000 needs 20128/);
  });

  test("a store that is damaged is a failure, and the doctor leaves it as it is", async () => {
    const lone = await startCluster(1);
    const [sick] = lone.nodes;
    const writer = await connect(sick.url);
    const room = freshRoom();
    for (const n of range(0, 100)) await publish(writer, room, "m", [n, "x".repeat(500)]);
    await sick.stop("SIGTERM");
    const flags = await free();
    flags[flags.indexOf("--data-dir") + 1] = dataOf(sick);
    const well = examine(flags);
    assert.match(well("store")[0].found, /closed cleanly/);
    assert.match(examine(flags)("store")[0].found, /closed cleanly/, "looking must not change it");

    const store = path(dataOf(sick), "history");
    const main = path(store, "db");
    writeFileSync(main, randomBytes(statSync(main).size));
    const before = readFileSync(main);
    const found = examine(flags);
    assert.deepEqual([found.good, found("store")[0].state], [false, "fail"], JSON.stringify(found("store")));
    assert.match(found("store")[0].found, /damaged/);
    assert.deepEqual(readFileSync(main), before);
    assert.ok(!readdirSync(dataOf(sick)).some((name) => name.startsWith("quarantine")));
    await lone.stop();
  });
});
