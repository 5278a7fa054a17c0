// Everything that can happen to a disk, as a table of cases, and the story that each of them is put through.
//
// Whatever is damaged: the process lives, no byte is delivered that was not published, what is missing is said, and the store
// takes messages again without anybody's help.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import { join as path } from "node:path";
import { ask, connect, done, freshRoom, join, publish, range } from "./client.mjs";
import { startCluster, starling } from "./cluster.mjs";
import { connectSoon, message, proven, readiness, stored } from "./store.mjs";
import { pause, until } from "./wait.mjs";

const ROOMS = 3;
const MESSAGES = 150;
/** After the cause is gone, the store takes messages again within this time. */
const HEALED_MS = 12_000;
/** How long a cause lasts. */
const HURT_MS = 2_500;
/** A file system for one case: the store wants 32 MiB of free space before it begins a commit. */
const DISK = "64m";

const root = process.getuid() === 0;
const run = (program, ...args) => execFileSync(program, args, { stdio: ["ignore", "pipe", "pipe"] });

const at = (file, share) => Math.floor(fs.statSync(file).size * share);
function write(file, offset, bytes) {
  const handle = fs.openSync(file, "r+");
  fs.writeSync(handle, bytes, 0, bytes.length, offset);
  fs.closeSync(handle);
}
function flip(file, share) {
  const offset = Math.min(at(file, share), fs.statSync(file).size - 1);
  const byte = Buffer.alloc(1);
  const handle = fs.openSync(file, "r");
  fs.readSync(handle, byte, 0, 1, offset);
  fs.closeSync(handle);
  write(file, offset, Buffer.from([byte[0] ^ 0x10]));
}
const garbage = (length) => Buffer.from(range(0, length).map((n) => (n * 7919 + 13) % 251));
const files = (dir) => path(dir, "history");
const main = (dir) => path(dir, "history", "db");
const snapshots = (dir) => fs.readdirSync(files(dir)).filter((name) => name.startsWith("snap"));

/** Damage done while the process is down: `[name, what is done to the data directory, signal that ended the process]`. */
const WHILE_DOWN = [
  ...[0.001, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9].map((share) => [`a bit flipped at ${share * 100} %`, (dir) => flip(main(dir), share)]),
  ...[0, 0.01, 0.2, 0.5, 0.8, 0.99].map((share) => [
    `main file cut at ${share * 100} %`,
    (dir) => fs.truncateSync(main(dir), at(main(dir), share)),
  ]),
  ...[0.05, 0.4, 0.75].map((share) => [`4 KiB zeroed at ${share * 100} %`, (dir) => write(main(dir), at(main(dir), share), Buffer.alloc(4096))]),
  ["main file full of garbage", (dir) => fs.writeFileSync(main(dir), garbage(100_000))],
  ["main file missing", (dir) => fs.rmSync(main(dir))],
  ["settings of the engine missing", (dir) => fs.rmSync(path(files(dir), "conf"))],
  ["settings of the engine garbled", (dir) => fs.writeFileSync(path(files(dir), "conf"), garbage(40))],
  ["snapshots missing", (dir) => snapshots(dir).forEach((name) => fs.rmSync(path(files(dir), name)))],
  ["snapshots garbled", (dir) => snapshots(dir).forEach((name) => fs.writeFileSync(path(files(dir), name), garbage(600)))],
  ["the store missing", (dir) => fs.rmSync(files(dir), { recursive: true })],
  ["an empty store in its place", (dir) => (fs.rmSync(files(dir), { recursive: true }), fs.mkdirSync(files(dir)))],
  ["a file in its place", (dir) => (fs.rmSync(files(dir), { recursive: true }), fs.writeFileSync(files(dir), "x"))],
  ["generation missing", (dir) => fs.rmSync(path(dir, "generation"))],
  ["generation garbled", (dir) => fs.writeFileSync(path(dir, "generation"), garbage(30))],
  ["lock missing", (dir) => fs.rmSync(path(dir, "lock"))],
  ["the whole data directory missing", (dir) => fs.rmSync(dir, { recursive: true })],
].map(([name, damage]) => ({ name: `down: ${name}`, story: (subject) => whileDown(subject, damage) }));

/** Damage done while the process runs, by a cause that goes away: `hurt` answers the function that takes it away. */
const WHILE_UP = [
  { name: "the data directory is deleted", loses: true, hurt: ({ dir }) => (fs.rmSync(dir, { recursive: true }), () => {}) },
  { name: "the store is moved away", loses: true, hurt: ({ dir }) => (fs.renameSync(files(dir), path(dir, "elsewhere")), () => {}) },
  { name: "the main file is deleted", loses: true, hurt: ({ dir }) => (fs.rmSync(main(dir)), () => {}) },
  { name: "the main file is filled with garbage", later: true, hurt: ({ dir }) => (write(main(dir), 0, garbage(at(main(dir), 1))), () => {}) },
  {
    name: "a limit on the size of files is reached",
    refuses: true,
    hurt: ({ node, dir }) => {
      run("prlimit", `--fsize=${at(main(dir), 1)}:unlimited`, `--pid=${node.pid}`);
      return () => run("prlimit", "--fsize=unlimited:unlimited", `--pid=${node.pid}`);
    },
  },
  { name: "the disk is full", refuses: true, mount: tmpfs, hurt: ({ dir }) => full(dir) },
  { name: "the disk does nothing but errors, then is mounted again", refuses: true, mount: ext4, hurt: broken },
].map((one) => ({ ...one, name: `up: ${one.name}`, story: (subject) => whileUp(subject, one) }));

/** Causes that are there when the process starts and go away later. */
const AT_START = [
  { name: "the disk is full", mount: tmpfs, hurt: ({ dir }) => full(dir) },
  {
    name: "the disk is read-only",
    mount: tmpfs,
    hurt: ({ dir }) => (run("mount", "-o", "remount,ro", dir), () => run("mount", "-o", "remount,rw", dir)),
  },
].map((one) => ({ ...one, name: `at start: ${one.name}`, story: (subject) => atStart(subject, one.hurt) }));

/** What a process must refuse, and leave alone. */
const REFUSED = [
  { name: "refused: a second process on the same directory", story: secondProcess },
];

export const CASES = [...WHILE_DOWN, ...WHILE_UP, ...AT_START, ...REFUSED];

/** The cases that the tests run every time: one of each kind. */
export const SHORT = [
  "down: a bit flipped at 50 %",
  "down: main file cut at 50 %",
  "down: main file missing",
  "down: settings of the engine garbled",
  "up: the data directory is deleted",
  "up: a limit on the size of files is reached",
  "up: the disk is full",
  "at start: the disk is read-only",
  "refused: a second process on the same directory",
].map((name) => CASES.find((one) => one.name === name));

/** Runs one case on a process of its own; answers what happened in words, or why it could not be run. */
export async function runCase({ story, mount }) {
  if (mount && !root) return "SKIPPED: needs root to mount a file system";
  const cluster = await startCluster(1);
  const [node] = cluster.nodes;
  const subject = { node, dir: path(cluster.folder, node.name), folder: cluster.folder, sent: new Map() };
  let unmount = () => {};
  try {
    if (mount) {
      await node.stop();
      unmount = mount(subject);
      await node.start();
    }
    await fill(subject);
    return await story(subject);
  } catch (error) {
    error.message += `\n${node.log.slice(-15).join("\n")}`;
    throw error;
  } finally {
    await node.stop("SIGKILL");
    unmount();
    await cluster.stop();
  }
}

/** Publishes what the case is about, and waits until it is on the disk. */
async function fill({ node, sent }) {
  const socket = await connect(node.url);
  for (const room of range(0, ROOMS).map(freshRoom)) {
    sent.set(room, []);
    for (const n of range(0, MESSAGES)) await send(socket, room, n, sent);
  }
  socket.disconnect();
  await pause(300);
}

async function send(socket, room, n, sent) {
  const { offset, epoch } = await publish(socket, room, "m", message(room, n));
  sent.get(room).push({ n, offset, epoch });
}

async function whileDown({ node, dir, sent }, damage) {
  await node.stop("SIGTERM");
  damage(dir);
  await node.start();
  const socket = await connectSoon(node);
  const kept = await judge(socket, sent);
  await goesOn(node, socket, sent);
  const quarantines = fs.readdirSync(dir).filter((name) => name.startsWith("quarantine-")).length;
  return `kept ${kept} of ${ROOMS * MESSAGES}, ${quarantines} quarantined`;
}

async function whileUp({ node, dir, folder, sent }, { hurt, loses, later, refuses }) {
  const socket = await connect(node.url);
  const heal = await hurt({ node, dir, folder });
  const answers = await publishMeanwhile(socket, sent, HURT_MS);
  if (refuses) assert.ok(answers.storage_full > 0, `a disk that cannot be written was not said: ${JSON.stringify(answers)}`);
  await heal();
  const healedMs = await takesMessages(socket, sent);
  if (!loses) await complete(socket, sent);
  const kept = await judge(socket, sent);
  await goesOn(node, socket, sent, later);
  return `${JSON.stringify(answers)} meanwhile, again after ${healedMs} ms, kept ${kept}`;
}

async function atStart({ node, dir, sent }, hurt) {
  await node.stop("SIGTERM");
  const heal = await hurt({ node, dir });
  node.start().catch(() => {});
  const socket = await connectSoon(node);
  assert.notEqual((await readiness(node)).store_open, "ok");
  const answers = await publishMeanwhile(socket, sent, HURT_MS);
  assert.ok(answers.storage_full > 0 && !answers.ok, `acked what cannot be kept: ${JSON.stringify(answers)}`);
  const listener = await connect(node.url);
  const live = new Promise((heard) => listener.once("live", heard));
  await join(listener, "plain");
  await publish(socket, "plain", "live", ["yes"], { volatile: true });
  assert.equal(await live, "yes", "what needs no disk goes on");
  await heal();
  const healedMs = await takesMessages(socket, sent);
  await complete(socket, sent);
  await judge(socket, sent);
  await goesOn(node, socket, sent);
  return `${JSON.stringify(answers)} meanwhile, again after ${healedMs} ms, kept everything`;
}

async function secondProcess({ node, sent }) {
  const flags = node.flags.map((flag, index) => (/listen$/.test(node.flags[index - 1] ?? "") ? "127.0.0.1:0" : flag));
  const other = spawnSync(starling(), ["serve", ...flags], { encoding: "utf8", timeout: HEALED_MS });
  assert.notEqual(other.status, 0);
  assert.match(other.stderr, /in use by another process/);
  const socket = await connect(node.url);
  await complete(socket, sent);
  await goesOn(node, socket, sent);
  return "refused with a sentence, the first goes on";
}

/** Publishes for a while; answers how often each answer came. What is acked counts as sent. */
async function publishMeanwhile(socket, sent, ms) {
  const answers = {};
  const end = performance.now() + ms;
  while (performance.now() < end) {
    for (const [room, list] of sent) {
      const n = 10_000 + list.length;
      const answer = await ask(socket, "room:publish", { room, event: "m", args: message(room, n) });
      const word = answer.ok ? "ok" : answer.code;
      answers[word] = (answers[word] ?? 0) + 1;
      if (answer.ok) list.push({ n, offset: answer.offset, epoch: answer.epoch });
    }
    await pause(10);
  }
  const strange = Object.keys(answers).filter((word) => !["ok", "storage_full"].includes(word));
  assert.deepEqual(strange, [], "answers that a disk does not explain");
  return answers;
}

/** Waits until every room takes a message and the node calls itself ready; answers how long that took. */
async function takesMessages(socket, sent) {
  const start = performance.now();
  for (const [room, list] of sent) {
    const n = 20_000 + list.length;
    const accepted = async () => {
      const answer = await ask(socket, "room:publish", { room, event: "m", args: message(room, n) });
      if (answer.ok) list.push({ n, offset: answer.offset, epoch: answer.epoch });
      return answer.ok;
    };
    await until(accepted, HEALED_MS, () => "the store to take messages again");
  }
  return Math.round(performance.now() - start);
}

/** Every byte is one that was published, in its place, without a hole; what is missing is said. Answers how many are left. */
async function judge(socket, sent) {
  let kept = 0;
  for (const [room, list] of sent) {
    const items = await readable(socket, room);
    const byOffset = new Map(list.map((one) => [one.offset, one.n]));
    for (const { offset, n } of items) assert.equal(byOffset.get(offset), n, `${room} has ${n} at ${offset}`);
    const first = list[0];
    const late = await join(socket, room, { history: { since: first.offset, epoch: first.epoch } });
    for (const item of late.history) proven(room, item.args);
    if (late.recovered) assert.deepEqual(late.history.map((item) => item.offset), list.slice(1).map((one) => one.offset));
    kept += items.length;
  }
  return kept;
}

/** Nothing that was acked is missing. */
async function complete(socket, sent) {
  for (const [room, list] of sent) {
    const items = await readable(socket, room);
    assert.deepEqual(items.map((item) => item.n), list.map((one) => one.n), `${room} is not complete`);
  }
}

/** History, as soon as the store can be read. */
async function readable(socket, room) {
  let items;
  const read = async () => {
    const answer = await ask(socket, "room:history", { room, limit: 1 });
    if (answer.ok) items = await stored(socket, room);
    return answer.ok;
  };
  await until(read, HEALED_MS, () => `the history of ${room}`);
  return items;
}

/** All is kept over a clean stop, with its epoch; or, where damage shows only `later`, the epoch says that it is not. */
async function goesOn(node, socket, sent, later = false) {
  await until(async () => (await readiness(node)).store_open === "ok", HEALED_MS, () => "the store to be open");
  const [first] = sent.keys();
  for (const [room, list] of sent) for (const n of range(0, 10)) await send(socket, room, 30_000 + list.length + n, sent);
  const before = new Map();
  for (const room of sent.keys()) before.set(room, await readable(socket, room));
  const { epoch } = await done(socket, "room:history", { room: first, limit: 1 });
  const end = await node.stop("SIGTERM");
  assert.deepEqual([end.code, end.signal], [0, null], "a clean stop");
  await node.start();
  const back = await connectSoon(node);
  const same = (await done(back, "room:history", { room: first, limit: 1 })).epoch === epoch;
  assert.equal(same, !later, "the epoch after a clean stop");
  for (const [room, items] of before) {
    const after = await stored(back, room);
    assert.deepEqual(after, same ? items : items.slice(0, after.length), `${room} after a clean stop`);
    const newest = sent.get(room).slice(-10).map((one) => one.n);
    assert.deepEqual(items.slice(-10).map((item) => item.n), newest, `the newest of ${room}`);
  }
  back.disconnect();
}

function tmpfs({ dir }) {
  return mounted(dir, ["-t", "tmpfs", "-o", `size=${DISK}`, "starling-test"]);
}

/** An ext4 on a file, which can be broken. */
function ext4({ dir, folder }) {
  const image = path(folder, "image");
  run("truncate", "-s", DISK, image);
  run("mkfs.ext4", "-q", image);
  return mounted(dir, ["-o", "loop", image]);
}

function mounted(dir, args) {
  run("mount", ...args, dir);
  return () => run("umount", "--lazy", dir);
}

/** Fills the disk to the last block. */
function full(dir) {
  const file = path(dir, "filling");
  try {
    run("dd", "if=/dev/zero", `of=${file}`, "bs=64k");
  } catch {
    // It ends when the disk is full, which is what it is for.
  }
  return () => fs.rmSync(file);
}

/** Every access to the file system fails from now on, until it is mounted again. */
function broken({ dir, folder }) {
  const SHUTDOWN = 0x8004587d;
  run("python3", "-c", `import fcntl,os,struct; fcntl.ioctl(os.open("${dir}", 0), ${SHUTDOWN}, struct.pack("I", 2))`);
  return () => {
    // Whoever still holds files of the broken one keeps it alive, so what is mounted is a copy of its disk.
    run("umount", "--lazy", dir);
    fs.copyFileSync(path(folder, "image"), path(folder, "copy"));
    run("mount", "-o", "loop", path(folder, "copy"), dir);
  };
}
