// A member of rooms by the official client, for `cargo xtask chaos`: what it sees is written as one JSON line per event.
//
// It is told its name, the nodes, its rooms and the prefix of this round's messages as JSON in its only argument, and ends
// when its standard input does. Whoever started it judges what it saw.

import { io } from "socket.io-client";

const { name, nodes, rooms, prefix } = JSON.parse(process.argv[2]);
const RETRY_MS = 150;
const ANSWER_MS = 8_000;

const cursors = new Map();
const missing = new Set();

/** CLOCK_MONOTONIC, as the other clients read it. */
const say = (entry) => write(`{"t":${process.hrtime.bigint()},"who":"${name}",${JSON.stringify(entry).slice(1)}`);
const write = (line) => process.stdout.write(`${line}\n`);
const count = () => write(JSON.stringify({ open: missing.size }));

/** One connection until it breaks, then another to the next node. */
function connect(attempt) {
  rooms.forEach((room) => missing.add(room));
  count();
  const [node, url] = nodes[attempt % nodes.length];
  const socket = io(url, { forceNew: true, reconnection: false, transports: ["websocket"], timeout: 3_000 });
  const again = (why) => {
    socket.removeAllListeners();
    socket.disconnect();
    say({ op: "disconnected", why });
    setTimeout(() => connect(attempt + 1), RETRY_MS);
  };
  socket.on("connect", () => {
    say({ op: "connected", node });
    rooms.forEach((room) => join(socket, room, cursors.get(room)));
  });
  socket.on("m", (mid, room) => say({ op: "received", room, mid }));
  socket.on("room:gap", ({ room, epoch, offset }) => {
    say({ op: "gap", room, at: { epoch, offset } });
    missing.add(room);
    count();
    join(socket, room, undefined);
  });
  socket.once("disconnect", again);
  socket.once("connect_error", (error) => again(error.message));
}

/** Joins, from a position on if there is one, until it is answered or the connection is over. */
function join(socket, room, since) {
  const history = since ? { since: since.offset, epoch: since.epoch } : undefined;
  socket.timeout(ANSWER_MS).emit("room:join", { room, history }, (error, answer) => {
    if (!socket.connected) return;
    if (error || !answer.ok) return void setTimeout(() => socket.connected && join(socket, room, since), RETRY_MS);
    const { epoch, offset, recovered = null } = answer;
    const ours = (answer.history ?? []).filter((item) => String(item.args[0]).startsWith(prefix));
    const items = ours.map((item) => ({ epoch: item.epoch, offset: item.offset, mid: item.args[0] }));
    cursors.set(room, { epoch, offset });
    missing.delete(room);
    say({ op: "joined", room, at: { epoch, offset }, since: since ?? null, recovered, items });
    count();
  });
}

process.stdin.on("end", () => process.exit(0)).resume();
connect(0);
