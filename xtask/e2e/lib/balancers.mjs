// Real balancers, with the very configuration files that `docs/how-to/behind-a-balancer.md` shows; only addresses change.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePorts } from "./cluster.mjs";
import { until } from "./wait.mjs";

const PAGE = new URL("../../../docs/how-to/behind-a-balancer.md", import.meta.url);
const READY_MS = 10_000;

/** What nodes behind them are told. */
export const before = { STARLING_SERVER__TRUSTED_PROXIES: "127.0.0.0/8" };

/** By name, functions that start one before these nodes; it ends with `close`. */
export const balancers = {
  nginx: (nodes) =>
    start("nginx.conf", nodes, (file, folder) => [
      "nginx",
      ["-p", folder, "-c", file, "-e", "stderr", "-g", `daemon off; master_process off; pid ${join(folder, "pid")};`],
    ]),
  HAProxy: (nodes) => start("haproxy.cfg", nodes, (file) => ["haproxy", ["-db", "-f", file]]),
};

/** The file that the page shows under this name. */
function sample(name) {
  const page = readFileSync(PAGE, "utf8");
  const [, text] = page.match(new RegExp(`^\`\`\`\\w+ file=${name}\\n([^]*?)^\`\`\`$`, "m")) ?? [];
  if (text === undefined) throw new Error(`the page shows no ${name}`);
  return text;
}

async function start(name, nodes, command) {
  const [{ client: port }] = await freePorts(1);
  let text = sample(name).replace(/listen 80;/, `listen 127.0.0.1:${port};`).replace(/bind :80$/m, `bind 127.0.0.1:${port}`);
  nodes.forEach((node, n) => (text = text.replace(`10.0.0.${n + 1}:3000`, new URL(node.url).host)));
  if (text.includes("10.0.0.")) throw new Error(`an address of ${name} was not replaced`);
  const folder = mkdtempSync(join(tmpdir(), "starling-balancer-"));
  writeFileSync(join(folder, name), text);
  const child = spawn(...command(join(folder, name), folder), { stdio: ["ignore", "inherit", "inherit"] });
  const ended = once(child, "exit");
  const url = `http://127.0.0.1:${port}`;
  const close = async () => {
    child.kill("SIGKILL");
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
  const serves = async () => (await fetch(`${url}/socket.io/socket.io.js`).catch(() => ({ ok: false }))).ok;
  await until(serves, READY_MS, () => `${name} to serve`).catch(async (error) => {
    await close();
    throw error;
  });
  return { url, close };
}
