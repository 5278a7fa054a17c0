// Well-formed events whose arguments are no request. Each is answered by its own refusal and the socket lives on.

import { refused } from "../lib/client.mjs";

const bad = (name, event, argument, code = "bad_request") => ({
  name,
  asks: (socket) => refused(socket, event, argument, code),
});

export const events = [
  bad("join without an argument", "room:join", undefined),
  bad("join a number", "room:join", 7),
  bad("join a list", "room:join", ["x"]),
  bad("join a room whose name is empty", "room:join", { room: "" }),
  bad("join a room whose name is a number", "room:join", { room: 7 }),
  bad("join a room with a control character", "room:join", { room: "a\nb" }),
  bad("join a room with a name of 257 bytes", "room:join", { room: "é".repeat(128) + "x" }),
  bad("join with a negative history", "room:join", { room: "x", history: { last: -1 } }),
  bad("join with a history beyond all numbers", "room:join", { room: "x", history: { last: 1e300 } }),
  bad("join since a position without its epoch", "room:join", { room: "x", history: { since: 1 } }),
  bad("join since a position that is a text", "room:join", { room: "x", history: { since: "1", epoch: "e" } }),
  bad("join with a replay that does not exist", "room:join", { room: "x", replay: "pigeon" }),
  bad("leave nothing", "room:leave", {}),
  bad("publish without an event", "room:publish", { room: "x", args: [] }),
  bad("publish a reserved event", "room:publish", { room: "x", event: "disconnect", args: [] }),
  bad("publish a forged notice", "room:publish", { room: "x", event: "room:gap", args: [] }),
  bad("publish arguments that are no list", "room:publish", { room: "x", event: "m", args: { 0: 1 } }),
  bad("publish with an id of 65 bytes", "room:publish", { room: "x", event: "m", args: [], id: "i".repeat(65) }),
  bad("read more history than allowed", "room:history", { room: "x", limit: 1001 }),
  bad("read history since a position without its epoch", "room:history", { room: "x", since: 1 }),
  bad("an event that nobody handles", "pigeon", {}, "unhandled_event"),
  bad("a built-in name that does not exist", "room:pigeon", {}, "unhandled_event"),
];
