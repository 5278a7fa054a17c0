// The command line: a local cluster in one command, and refusals that say what to do.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join as path } from "node:path";
import { after, before, describe, test } from "node:test";
import { closeAll, connect, freshRoom, gets, join, publish, received } from "./lib/client.mjs";
import { freePorts, starling } from "./lib/cluster.mjs";
import { until } from "./lib/wait.mjs";

const EXIT_CONFIG = 78;
const EXIT_USAGE = 2;
const EXIT_UNREACHABLE = 3;

let folder;
before(() => {
  folder = mkdtempSync(path(tmpdir(), "starling-cli-"));
});
after(() => {
  closeAll();
  rmSync(folder, { recursive: true, force: true });
});

/** Runs the binary to its end in the test's folder. */
function run(args, env = {}) {
  const options = { cwd: folder, encoding: "utf8", timeout: 20_000, env: { ...process.env, ...env } };
  const { status, stdout, stderr } = spawnSync(starling(), args, options);
  return { status, stdout, stderr };
}

/** A configuration file with this text. */
function config(text) {
  const file = path(folder, `starling-${Math.random().toString(36).slice(2)}.toml`);
  writeFileSync(file, text);
  return file;
}

describe("starling dev", () => {
  test("three nodes start, talk to each other, and stop together at SIGINT", async () => {
    const port = await portBase();
    const dev = spawn(starling(), ["dev", "--nodes", "3", "--port", String(port)], { cwd: folder });
    let output = "";
    for (const stream of [dev.stdout, dev.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
    const exit = once(dev, "exit");
    try {
      const urls = [0, 10, 20].map((step) => `http://127.0.0.1:${port + step}`);
      const admin = (url) => url.replace(/\d+$/, (client) => String(Number(client) + 1));
      const ready = async (url) => (await fetch(`${admin(url)}/readyz`).catch(() => undefined))?.ok;
      const allReady = async () => (await Promise.all(urls.map(ready))).every(Boolean);
      await until(allReady, 20_000, () => `readiness\n${output}`);
      await until(() => urls.every((url) => output.includes(url.slice(7))), 5_000, () => `printed URLs in\n${output}`);
      const members = await Promise.all(urls.map((url) => connect(url)));
      const room = freshRoom();
      const lists = members.map((member) => received(member, "m"));
      for (const member of members) await join(member, room);
      await publish(members[0], room, "m", ["hello"], { echo: true });
      for (const list of lists) await gets(list, 1);
      closeAll();
    } finally {
      dev.kill("SIGINT");
    }
    const [code, signal] = await exit;
    assert.deepEqual([code, signal], [0, null], output);
    await portIsFree(port);
  });
});

describe("starling without arguments", () => {
  test("serves the demo page and every room on loopback, and prints what to open", async () => {
    const [ports] = await freePorts(1);
    const env = {
      STARLING_SERVER__LISTEN: `127.0.0.1:${ports.client}`,
      STARLING_SERVER__ADMIN_LISTEN: `127.0.0.1:${ports.admin}`,
      STARLING_CLUSTER__MESH_LISTEN: `127.0.0.1:${ports.mesh}`,
    };
    const child = spawn(starling(), [], { cwd: folder, env: { ...process.env, ...env } });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text) => (output += text));
    const exit = once(child, "exit");
    try {
      await until(() => /http:\/\/\S+/.test(output), 20_000, () => `an address in ${JSON.stringify(output)}`);
      const [url] = output.match(/http:\/\/\S+/);
      assert.equal(url, `http://127.0.0.1:${ports.client}/`);
      const page = await fetch(url);
      assert.equal(page.status, 200);
      assert.match(await page.text(), /socket\.io/);
      const socket = await connect(url.slice(0, -1));
      await join(socket, freshRoom());
      await publish(socket, freshRoom(), "m", []);
      closeAll();
    } finally {
      child.kill("SIGINT");
    }
    assert.deepEqual(await exit, [0, null]);
  });
});

describe("a configuration that cannot be right ends with 78 and says what is wrong", () => {
  const cases = {
    "a misspelt key, with its place and the right word": {
      args: () => ["serve", "--config", config('[socketio]\nping_intervall = "25s"\n')],
      says: [/ping_intervall/, /:2:1/, /ping_interval"/],
    },
    "two mistakes, both named": {
      args: () => ["serve", "--config", config('[server]\nlisten = "nowhere"\n[socketio]\nping_interval = "soon"\n')],
      says: [/server\.listen/, /socketio\.ping_interval/],
    },
    "a file that is not TOML": { args: () => ["serve", "--config", config("[server\n")], says: [/starling-.*toml/] },
    "a file that is not there": { args: () => ["serve", "--config", "nothing.toml"], says: [/nothing\.toml/] },
    "a public address without a word about authentication": {
      args: () => ["serve", "--listen", "0.0.0.0:3999"],
      says: [/auth/],
    },
    "seeds without a cluster key": {
      args: () => ["serve", "--node", "gw-0", "--seed", "127.0.0.1:3999"],
      says: [/key/],
    },
    "seeds without an ordinal": {
      args: () => ["serve", "--node", "gw", "--seed", "127.0.0.1:3999", "--cluster-key-file", config("0123456789abcdef".repeat(4))],
      says: [/ordinal/],
    },
    "an environment variable that no key has": {
      args: () => ["serve"],
      env: { STARLING_SERVER__LISTENN: "127.0.0.1:3999" },
      says: [/STARLING_SERVER__LISTENN/],
    },
  };
  for (const [name, { args, env, says }] of Object.entries(cases)) {
    test(name, () => {
      const { status, stderr, stdout } = run(args(), env);
      assert.equal(status, EXIT_CONFIG, stderr + stdout);
      for (const pattern of says) assert.match(stderr, pattern);
      assert.doesNotMatch(stderr, /panicked/);
    });
  }
});

describe("other commands", () => {
  test("a flag that does not exist is a usage error", () => {
    assert.equal(run(["serve", "--listenn", "x"]).status, EXIT_USAGE);
  });

  test("config check accepts the example and config show names origins", () => {
    assert.equal(run(["config", "check"]).status, 0);
    const file = config('[socketio]\nping_interval = "5s"\n[[namespace]]\nname = "/"\n');
    const shown = run(["config", "show", "--origin", "--config", file], { STARLING_LOG__FILTER: "warn" });
    assert.equal(shown.status, 0, shown.stderr);
    assert.match(shown.stdout, /ping_interval.*5s/);
    assert.match(shown.stdout, /STARLING_LOG__FILTER/);
  });

  test("status of a node that is not there says so with its own code", async () => {
    const port = await portBase();
    assert.equal(run(["status", "--admin", `http://127.0.0.1:${port}`]).status, EXIT_UNREACHABLE);
  });
});

/** A port that is free together with the ones that `dev --nodes 3` adds to it. */
async function portBase() {
  for (let port = 20_000 + Math.floor(Math.random() * 8_000); ; port += 37) {
    const wanted = [0, 10, 20].flatMap((step) => [port + step, port + step + 1]);
    const free = await Promise.all(wanted.map((candidate) => portIsFree(candidate).then(() => true, () => false)));
    if (free.every(Boolean)) return port;
  }
}

async function portIsFree(port) {
  const server = createServer().listen(port, "127.0.0.1");
  await once(server, "listening");
  await new Promise((done) => server.close(done));
}
