// Real `starling` processes for a test: one, or several that find each other, on free loopback ports.
//
// A node that dies early, or is not ready in time, fails with the tail of its log; `stop` leaves nothing running.

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { Line } from "./line.mjs";
import { until } from "./wait.mjs";

const READY_MS = 20_000;
const STOP_MS = 15_000;
const LOG_LINES_KEPT = 200;

/** What runs now; ended with this process, however it ends. */
const running = new Set();
process.once("exit", () => running.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

/** The binary under test. */
export function starling() {
  const binary = process.env.STARLING_BIN;
  if (!binary) throw new Error("set STARLING_BIN to the starling binary (cargo build -p node puts it in target/debug)");
  return resolve(binary);
}

/** A program with a node embedded, from `node/examples`; it is built next to the binary. */
export const example = (name) => resolve(dirname(starling()), "examples", name);

/** One process. `stop` resolves to its exit code and how long it took. */
export class Node {
  constructor(name, flags, ports, environment, binary) {
    this.binary = binary;
    this.environment = environment;
    this.name = name;
    this.flags = flags;
    this.url = `http://127.0.0.1:${ports.client}`;
    this.admin = `http://127.0.0.1:${ports.admin}`;
    this.log = [];
  }

  async start() {
    this.child = spawn(this.binary, ["serve", ...this.flags], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...this.environment },
    });
    running.add(this.child);
    this.exited = once(this.child, "exit").then(([code, signal]) => ({ code, signal }));
    this.exited.then((end) => {
      running.delete(this.child);
      this.end = end;
    });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => {
        this.log.push(...text.trimEnd().split("\n"));
        this.log.splice(0, Math.max(0, this.log.length - LOG_LINES_KEPT));
      });
    }
    this.end = undefined;
    await this.waitUntilReady();
  }

  async waitUntilReady() {
    await until(
      async () => {
        if (this.end) throw new Error(`${this.name} ended with ${JSON.stringify(this.end)}\n${this.log.join("\n")}`);
        const answer = await fetch(`${this.admin}/readyz`).catch(() => undefined);
        await answer?.body?.cancel();
        return answer?.status === 200;
      },
      READY_MS,
      () => `${this.name} to be ready\n${this.log.join("\n")}`,
    );
  }

  get pid() {
    return this.child.pid;
  }

  /** Sends the signal and waits for the end; kills what does not end in time, which then shows in `signal`. */
  async stop(signal = "SIGTERM") {
    const start = performance.now();
    if (!this.end) {
      const late = setTimeout(() => this.child.kill("SIGKILL"), STOP_MS);
      this.child.kill(signal);
      await this.exited;
      clearTimeout(late);
    }
    return { ...this.end, ms: performance.now() - start };
  }

  /** One figure of /metrics: the sum of all samples of `name` that have these labels. */
  async metric(name, labels = {}) {
    const text = await (await fetch(`${this.admin}/metrics`)).text();
    const wanted = Object.entries(labels).map(([key, value]) => `${key}="${value}"`);
    const samples = text.split("\n").filter((line) => {
      const [, sample, inside = ""] = line.match(/^([a-z_]+)(?:\{(.*)\})? /) ?? [];
      return sample === name && wanted.every((label) => inside.split(",").includes(label));
    });
    if (samples.length === 0 && !text.includes(name)) throw new Error(`${this.name} has no metric ${name}`);
    return samples.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
  }

  async cluster() {
    return (await fetch(`${this.admin}/api/cluster`)).json();
  }
}

/**
 * Starts `size` nodes and waits until each sees all of them alive. The rest is the same for every node. With `seed`, each
 * node is reached by the others only through a line (`line.mjs`), in `lines`.
 */
export async function startCluster(size, flags = [], environment = {}, binary = starling(), seed = undefined) {
  const folder = mkdtempSync(join(tmpdir(), "starling-e2e-"));
  const ports = await freePorts(size);
  const lines = seed === undefined ? [] : await Promise.all(ports.map((own, n) => Line.to(own.mesh, seed + n)));
  const reached = (index) => `127.0.0.1:${(lines[index] ?? {}).port ?? ports[index].mesh}`;
  const key = join(folder, "cluster.key");
  writeFileSync(key, randomBytes(32).toString("hex"), { mode: 0o600 });
  const nodes = ports.map((own, index) => {
    const name = `gw-${index}`;
    const all = ["--node", name, "--data-dir", join(folder, name), ...flags];
    all.push("--listen", `127.0.0.1:${own.client}`, "--admin-listen", `127.0.0.1:${own.admin}`);
    all.push("--mesh-listen", `127.0.0.1:${own.mesh}`);
    if (size > 1) all.push("--cluster-key-file", key);
    if (lines.length > 0) all.push("--advertise", reached(index));
    for (const other of ports.keys()) if (other !== index) all.push("--seed", reached(other));
    return new Node(name, all, own, environment, binary);
  });
  const stop = async () => {
    const ends = await Promise.all(nodes.map((node) => node.child && node.stop()));
    lines.forEach((line) => line.close());
    rmSync(folder, { recursive: true, force: true });
    return ends;
  };
  try {
    await Promise.all(nodes.map((node) => node.start()));
    await Promise.all(nodes.map((node) => sees(node, size)));
  } catch (error) {
    await stop();
    throw error;
  }
  return { nodes, folder, key, lines, stop };
}

async function sees(node, size) {
  const alive = (report) => report.members.filter((member) => member.state === "alive").length;
  await until(async () => alive(await node.cluster()) === size, READY_MS, () => `${node.name} to see ${size} members`);
}

/** Ports that were free a moment ago: for each node one for clients and one for admin (TCP), one for the mesh (UDP). */
export async function freePorts(count) {
  const held = [];
  const tcp = async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    held.push(server);
    return server.address().port;
  };
  const udp = async () => {
    const socket = createSocket("udp4").bind(0, "127.0.0.1");
    await once(socket, "listening");
    held.push(socket);
    return socket.address().port;
  };
  const ports = [];
  for (let index = 0; index < count; index += 1) {
    ports.push({ client: await tcp(), admin: await tcp(), mesh: await udp() });
  }
  await Promise.all(held.map((holder) => new Promise((done) => holder.close(done))));
  return ports;
}
