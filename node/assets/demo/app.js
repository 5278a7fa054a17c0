// The demo chat: an unmodified Socket.IO client that joins one room, reads its history and talks.
//
// What keeps it exact:
// - Every message has an id of its own. The same id is the `id` of the publish, so that a resend delivers nothing twice,
//   and the key under which it is shown, so that a repeat from history shows nothing twice.
// - We publish with `echo`: our own message comes back in the room's order. Once it has come back, everything before it
//   has come too, and only then does our position in the room move on.
// - After a lost connection we join `since` that position: what was said meanwhile arrives with the answer.

const HISTORY = 50;            // messages a newcomer asks for
const SHOWN_MAX = 500;         // messages kept on the page
const PENDING_MAX = 100;       // messages that may wait for a connection
const ANSWER_TIMEOUT = 8000;   // milliseconds
const RETRY_DELAY = 1000;      // milliseconds before a refused join is tried again
const EVENT = "chat";

const $ = (id) => document.getElementById(id);
const prefix = document.body.dataset.prefix;
const path = new URL($("client").src).pathname.replace(/[^/]*$/, "");

const nodes = listNodes();
const shown = new Map();       // message id -> its <li>
const pending = new Map();     // message id -> message that was not seen in the room yet
const acked = new Map();       // message id -> position, from the answer until the echo

let socket;                    // the connection, if we ever joined
let room = "";
let name = "";
let position;                  // {epoch, offset} up to which we have seen everything
let joined = false;
let attempt = 0;               // numbers joins, so that a late answer to an old one is ignored
let failures = 0;              // connections that failed in a row
let unread = 0;

setUp();

function setUp() {
  for (const url of nodes) $("node").add(new Option(new URL(url).host, url));
  $("name").value = remembered("name") ?? `guest-${Math.floor(1000 + Math.random() * 9000)}`;
  $("room").value = new URLSearchParams(location.search).get("room") ?? remembered("room") ?? "lobby";
  $("who").addEventListener("submit", (event) => { event.preventDefault(); enter(); });
  $("compose").addEventListener("submit", (event) => { event.preventDefault(); say(); });
  $("node").addEventListener("change", () => { failures = 0; if (socket) connect(); });
  document.addEventListener("visibilitychange", () => countUnread(0));
}

/** The nodes this page may talk to: its own, or the ports in `?nodes=3000,3010`. */
function listNodes() {
  const ports = (new URLSearchParams(location.search).get("nodes") ?? "").split(",");
  const valid = ports.filter((port) => /^\d{1,5}$/.test(port) && Number(port) > 0 && Number(port) < 65536);
  const others = valid.map((port) => `${location.protocol}//${location.hostname}:${Number(port)}`);
  return [...new Set([location.origin, ...others.map((url) => new URL(url).origin)])];
}

function enter() {
  name = $("name").value.trim() || "guest";
  remember("name", name);
  const wanted = $("room").value.trim() || "lobby";
  remember("room", wanted);
  if (wanted !== room) {
    if (joined) socket.emit(`${prefix}leave`, { room });
    room = wanted;
    position = undefined;
    for (const memory of [shown, pending, acked]) memory.clear();
    $("messages").replaceChildren();
  }
  if (!socket) connect();
  else if (socket.connected) join();
  $("text").disabled = $("send").disabled = false;
  $("text").focus();
}

/** Connects to the chosen node, leaving the one before. */
function connect() {
  if (socket) {
    socket.removeAllListeners();
    socket.disconnect();
  }
  joined = false;
  const mine = socket = io($("node").value, { path, forceNew: true });
  setState("waiting", "connecting");
  mine.on("connect", () => { failures = 0; join(); });
  mine.on("connect_error", (error) => {
    setState("waiting", `no connection: ${error.message}`);
    // A refusal by the server ends the client's own attempts; anything else it repeats by itself.
    if (!mine.active) setTimeout(() => { if (mine === socket) mine.connect(); }, RETRY_DELAY);
    if (++failures >= 2 && nodes.length > 1) moveOn();
  });
  mine.on("disconnect", (reason) => {
    joined = false;
    setState("waiting", `reconnecting (${reason})`);
    if (!mine.active) setTimeout(() => { if (mine === socket) mine.connect(); }, RETRY_DELAY);
  });
  mine.on(EVENT, (message) => { if (isMessage(message)) receive(message); });
  mine.on(`${prefix}gap`, (gap) => {
    if (gap?.room !== room) return;
    note("the room lost its thread here: something may be missing", true);
    join();
  });
  mine.on(`${prefix}removed`, (notice) => {
    if (notice?.room !== room) return;
    joined = false;
    setState("refused", `removed: ${notice.code}`);
  });
}

/** Our node does not answer: take the next one, with our position in the room. */
function moveOn() {
  failures = 0;
  const select = $("node");
  select.selectedIndex = (select.selectedIndex + 1) % nodes.length;
  note(`moving to ${new URL(select.value).host}`);
  connect();
}

function join() {
  const [mine, wanted, number] = [socket, room, ++attempt];
  const history = position ? { since: position.offset, epoch: position.epoch } : { last: HISTORY };
  setState("waiting", "joining");
  mine.timeout(ANSWER_TIMEOUT).emit(`${prefix}join`, { room: wanted, history }, (error, answer) => {
    if (mine !== socket || number !== attempt) return;
    if (error || !answer?.ok) {
      const reason = error ? "timeout" : answer?.code ?? "no answer";
      setState("refused", `not joined: ${reason}`);
      if (error || answer?.retry_ms || reason === "timeout" || reason === "overloaded") {
        setTimeout(() => { if (mine === socket && number === attempt && mine.connected) join(); }, answer?.retry_ms ?? RETRY_DELAY);
      }
      return;
    }
    welcome(answer);
  });
}

/** We are in: show what we missed, then send what waited. */
function welcome(answer) {
  const first = position === undefined;
  joined = true;
  setState("live", "live");
  const items = (answer.history ?? []).filter((item) => item.event === EVENT && isMessage(item.args?.[0]));
  if (answer.recovered === false) note("something may be missing here", true);
  for (const item of items) {
    const [message] = item.args;
    pending.delete(message.id);
    acked.delete(message.id);
    show(message, { offset: item.offset, time: item.time_ms });
  }
  if (!first && answer.recovered) note(`back on ${new URL($("node").value).host}, nothing is missing`);
  else if (first) note(items.length ? `${items.length} earlier; live from here` : "nothing was said here yet; live from here");
  moveTo(answer);
  for (const message of pending.values()) publish(message);
}

function say() {
  const text = $("text").value.trim();
  if (!text || !room) return;
  if (pending.size >= PENDING_MAX) return note("too many messages wait for a connection", true);
  const message = { id: newId(), name, text, at: Date.now() };
  pending.set(message.id, message);
  show(message, { pending: true });
  $("text").value = "";
  if (joined) publish(message);
}

function publish(message) {
  const [mine, wanted] = [socket, room];
  const request = { room: wanted, event: EVENT, args: [message], echo: true, id: message.id };
  mine.timeout(ANSWER_TIMEOUT).emit(`${prefix}publish`, request, (error, answer) => {
    if (mine !== socket || wanted !== room) return;
    if (error) {
      // Not known whether it arrived: the same id makes trying again harmless.
      if (joined && pending.has(message.id)) publish(message);
    } else if (answer?.ok) {
      if (pending.delete(message.id)) acked.set(message.id, answer);
      else moveTo(answer);
      mark(message.id, { offset: answer.offset, pending: acked.has(message.id) });
    } else if (answer?.code === "overloaded") {
      setTimeout(() => { if (joined && pending.has(message.id)) publish(message); }, answer.retry_ms ?? RETRY_DELAY);
    } else {
      pending.delete(message.id);
      mark(message.id, { failed: answer?.code ?? "no answer" });
    }
  });
}

/** A live message, in the room's order. */
function receive(message) {
  const wasPending = pending.delete(message.id);
  const answer = acked.get(message.id);
  acked.delete(message.id);
  if (answer) moveTo(answer);
  show(message, {});
  if (!wasPending && !answer) countUnread(1);
}

/** Everything up to here has been seen. */
function moveTo({ epoch, offset }) {
  if (typeof epoch !== "string" || typeof offset !== "number") return;
  if (position && position.epoch === epoch && position.offset > offset) return;
  position = { epoch, offset };
  $("position").textContent = `epoch ${epoch} · offset ${offset}`;
}

function isMessage(value) {
  return value !== null && typeof value === "object" &&
    ["id", "name", "text"].every((key) => typeof value[key] === "string") && value.id.length <= 64;
}

/** Puts a message where it belongs: confirmed ones in the room's order, those that still wait below them. */
function show(message, { offset, time, pending: waits }) {
  const known = shown.get(message.id);
  if (known && !known.classList.contains("pending")) return mark(message.id, { offset });
  const item = known ?? render(message, time);
  item.className = waits ? "pending" : time ? "" : "new";
  shown.set(message.id, item);
  append(item);
  mark(message.id, { offset, pending: waits });
}

function render(message, time) {
  const item = document.createElement("li");
  item.dataset.id = message.id;
  item.append(part("name", message.name.slice(0, 40)), part("meta", ""), part("said", message.text.slice(0, 2000)));
  item.style.setProperty("--hue", hue(message.name));
  const at = new Date(time ?? message.at ?? Date.now());
  item.dataset.time = Number.isNaN(at.getTime()) ? "" : at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return item;
}

/** Updates what stands beside a message: time, offset, or why it was not sent. */
function mark(id, { offset, failed, pending: waits }) {
  const item = shown.get(id);
  if (!item) return;
  item.classList.toggle("pending", Boolean(waits));
  item.classList.toggle("failed", Boolean(failed));
  if (offset !== undefined) item.dataset.offset = offset;
  const number = item.dataset.offset ? `#${item.dataset.offset}` : "";
  item.querySelector(".meta").textContent = failed ? `not sent: ${failed}` : [number, item.dataset.time].filter(Boolean).join(" · ");
}

function note(text, warning) {
  const item = document.createElement("li");
  item.className = warning ? "note warning" : "note";
  item.textContent = text;
  append(item);
}

function append(item) {
  const list = $("messages");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  const waiting = item.className === "pending" ? null : list.querySelector(".pending");
  list.insertBefore(item, waiting);
  while (list.children.length > SHOWN_MAX) {
    shown.delete(list.firstElementChild.dataset.id);
    list.firstElementChild.remove();
  }
  // Somebody who reads further up is left in peace.
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function part(className, text) {
  const span = document.createElement("span");
  span.className = className;
  span.textContent = text;
  return span;
}

function setState(state, text) {
  $("state").dataset.state = state;
  $("state").textContent = text;
}

function countUnread(more) {
  unread = document.hidden ? unread + more : 0;
  document.title = unread ? `(${unread}) Starling chat` : "Starling chat";
}

function hue(text) {
  let sum = 0;
  for (const character of text) sum = (sum * 31 + character.codePointAt(0)) % 65536;
  return String(Math.round(sum * 137.5) % 360);
}

/** Random, and available on plain HTTP too, where `crypto.randomUUID` is not. */
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function remember(key, value) {
  try { localStorage.setItem(`starling.${key}`, value); } catch { /* private windows may refuse: then nothing is kept */ }
}

function remembered(key) {
  try { return localStorage.getItem(`starling.${key}`); } catch { return null; }
}
