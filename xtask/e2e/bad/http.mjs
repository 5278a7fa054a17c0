// Requests that are not HTTP, not allowed, or not for us. A case is a name and what to send; it must be answered with
// the status (and Engine.IO error) that is documented, or closed where there is nobody to answer.

import assert from "node:assert/strict";
import { request, send, status } from "../lib/wire.mjs";

const CLOSED = 0;
const POLL = "/socket.io/?EIO=4&transport=polling";
const SOCKET = "/socket.io/?EIO=4&transport=websocket";
const KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const VERSION = "Sec-WebSocket-Version: 13";
const UPGRADE = ["Connection: Upgrade", "Upgrade: websocket"];

/** What Engine.IO says with each of its error codes. */
const MESSAGES = {
  0: "Transport unknown",
  1: "Session ID unknown",
  2: "Bad handshake method",
  3: "Bad request",
  5: "Unsupported protocol version",
};

/** Answered with one of these statuses. */
const answered = (name, statuses, act) => ({
  name,
  run: async (node) => {
    const answer = await act(node);
    assert.ok(statuses.includes(status(answer)), `${status(answer)}: ${JSON.stringify(answer.text.slice(0, 300))}`);
  },
});

/** Answered with 400 and this Engine.IO error. */
const error = (name, code, line, headers, content) => ({
  name,
  run: async (node) => {
    const answer = await request(node, line, headers, content);
    assert.equal(status(answer), 400, answer.text);
    assert.match(answer.text.toLowerCase(), /content-type: application\/json/);
    const body = answer.text.split("\r\n\r\n").at(-1);
    assert.deepEqual(JSON.parse(body), { code, message: MESSAGES[code] });
  },
});

const many = (count, line) => Array.from({ length: count }, (_, index) => line(index));

export const http = [
  answered("bytes that are no request", [400, CLOSED], (node) =>
    send(node, Buffer.from([0, 1, 2, 255, 13, 10, 13, 10])),
  ),
  answered("a TLS hello", [400, CLOSED], (node) => send(node, Buffer.from("16030100050100000100", "hex"))),
  answered("a version that does not exist", [400, 505, CLOSED], (node) => send(node, "GET / HTTP/9.9\r\n\r\n")),
  answered("a header without a colon", [400, CLOSED], (node) => request(node, `GET ${POLL} HTTP/1.1`, ["nonsense"])),
  answered("a header block beyond the limit", [431, CLOSED], (node) =>
    request(node, `GET ${POLL} HTTP/1.1`, [`X-Big: ${"x".repeat(40_000)}`]),
  ),
  answered("five hundred headers", [431, CLOSED], (node) =>
    request(node, `GET ${POLL} HTTP/1.1`, many(500, (n) => `X-${n}: ${n}`)),
  ),
  answered("a request line beyond the limit", [414, 431, 400, CLOSED], (node) =>
    request(node, `GET ${POLL}&x=${"x".repeat(100_000)} HTTP/1.1`),
  ),
  answered("two lengths that differ", [400, CLOSED], (node) =>
    request(node, `POST ${POLL} HTTP/1.1`, ["Content-Length: 2", "Content-Length: 3"], "40x"),
  ),
  answered("a negative length", [400, CLOSED], (node) =>
    request(node, `POST ${POLL} HTTP/1.1`, ["Content-Length: -1"], "40"),
  ),
  answered("a length and chunks", [400, CLOSED], (node) =>
    request(node, `POST ${POLL} HTTP/1.1`, ["Content-Length: 2", "Transfer-Encoding: chunked"], "0\r\n\r\n"),
  ),
  answered("a chunk size that is no number", [400, CLOSED], (node) =>
    request(node, `POST ${POLL} HTTP/1.1`, ["Transfer-Encoding: chunked"], "zz\r\n40\r\n0\r\n\r\n"),
  ),
  answered("a path that is not ours", [404], (node) => request(node, "GET /etc/passwd HTTP/1.1")),
  answered("a path that climbs", [400, 404], (node) => request(node, "GET /socket.io/../../etc/passwd HTTP/1.1")),
  answered("the path without its slash", [404], (node) =>
    request(node, "GET /socket.io?EIO=4&transport=polling HTTP/1.1"),
  ),
  error("no transport", 0, "GET /socket.io/?EIO=4 HTTP/1.1"),
  error("a transport that does not exist", 0, "GET /socket.io/?EIO=4&transport=pigeon HTTP/1.1"),
  error("a session that does not exist", 1, `GET ${POLL}&sid=abc HTTP/1.1`),
  error("a session called __proto__", 1, `GET ${POLL}&sid=__proto__ HTTP/1.1`),
  error("a session with a wrong seal", 1, `GET ${POLL}&sid=${"A".repeat(32)} HTTP/1.1`),
  error("a post to no session", 1, `POST ${POLL}&sid=abc HTTP/1.1`, ["Content-Length: 1"], "2"),
  error("a handshake by POST", 2, `POST ${POLL} HTTP/1.1`, ["Content-Length: 2"], "40"),
  error("a handshake by DELETE", 2, `DELETE ${POLL} HTTP/1.1`),
  error("a WebSocket by plain GET", 3, `GET ${SOCKET} HTTP/1.1`),
  error("no protocol version", 5, "GET /socket.io/?transport=polling HTTP/1.1"),
  error("an old protocol version", 5, "GET /socket.io/?EIO=3&transport=polling HTTP/1.1"),
  error("a future protocol version", 5, "GET /socket.io/?EIO=5&transport=polling HTTP/1.1"),
  answered("an upgrade for a session that does not exist", [400], (node) =>
    request(node, `GET ${SOCKET}&sid=abc HTTP/1.1`, [...UPGRADE, VERSION, KEY]),
  ),
  answered("an upgrade to a transport that does not exist", [400], (node) =>
    request(node, "GET /socket.io/?EIO=4&transport=pigeon HTTP/1.1", [...UPGRADE, VERSION, KEY]),
  ),
  answered("an upgrade without a key", [400], (node) =>
    request(node, `GET ${SOCKET} HTTP/1.1`, [...UPGRADE, VERSION]),
  ),
  answered("an upgrade of another WebSocket version", [400, 426], (node) =>
    request(node, `GET ${SOCKET} HTTP/1.1`, [...UPGRADE, "Sec-WebSocket-Version: 8", KEY]),
  ),
  answered("percent signs that encode nothing", [400], (node) => request(node, `GET ${POLL}&sid=%zz%f HTTP/1.1`)),
];
