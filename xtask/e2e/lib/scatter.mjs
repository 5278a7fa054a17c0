// A balancer without affinity, at its worst: every single request of a session goes to another node than the one before.
//
// Requests are relayed as they are, WebSockets as bytes; what clients are refused is kept in `refusals`.

import { once } from "node:events";
import { Agent, createServer, request } from "node:http";
import { connect } from "node:net";

const elsewhere = ({ home, turn }) => home + turn;

/**
 * Starts a balancer before these nodes. Ends with `close`. `choose` says which node gets a request of a session: given the node
 * that opened it, the number of the request, and whether it is an upgrade.
 */
export async function scatter(nodes, choose = elsewhere) {
  const targets = nodes.map((node) => new URL(node.url));
  const agent = new Agent({ keepAlive: true });
  const turns = new Map();
  const open = new Set();
  const proxy = { refusals: [], requests: 0, upgrades: 0 };
  let handshakes = 0;

  /** Where this request goes: sessions take turns by themselves, starting one behind the node that opened them. */
  const next = (url, upgrade) => {
    const sid = new URL(url, "http://proxy").searchParams.get("sid");
    if (sid === null) return targets[(handshakes += 1) % targets.length];
    const turn = (turns.get(sid) ?? 0) + 1;
    turns.set(sid, turn);
    return targets[choose({ home: ordinal(sid), turn, upgrade }) % targets.length];
  };

  const server = createServer((ask, answer) => {
    proxy.requests += 1;
    const { hostname, port } = next(ask.url, false);
    const { method, headers, url: path } = ask;
    const onward = request({ hostname, port, path, method, headers, agent }, (reply) => {
      if (reply.statusCode >= 400) {
        let text = "";
        reply.setEncoding("utf8").on("data", (part) => (text += part));
        reply.on("end", () => proxy.refusals.push(`${method} ${reply.statusCode} ${text}`));
      }
      answer.writeHead(reply.statusCode, reply.headers);
      reply.pipe(answer);
    });
    onward.on("error", () => answer.destroy());
    answer.on("close", () => answer.writableFinished || onward.destroy());
    ask.pipe(onward);
  });
  server.on("upgrade", (ask, client, rest) => {
    proxy.upgrades += 1;
    const { hostname, port } = next(ask.url, true);
    const node = connect(Number(port), hostname, () => {
      const lines = [`${ask.method} ${ask.url} HTTP/1.1`];
      for (let n = 0; n < ask.rawHeaders.length; n += 2) lines.push(`${ask.rawHeaders[n]}: ${ask.rawHeaders[n + 1]}`);
      node.write(`${lines.join("\r\n")}\r\n\r\n`);
      node.write(rest);
      node.pipe(client);
      client.pipe(node);
    });
    for (const [one, other] of [[node, client], [client, node]]) {
      open.add(one);
      one.setNoDelay(true);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        open.delete(one);
        other.destroy();
      });
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  proxy.url = `http://127.0.0.1:${server.address().port}`;
  proxy.close = () => {
    open.forEach((socket) => socket.destroy());
    agent.destroy();
    server.closeAllConnections();
    return new Promise((closed) => server.close(closed));
  };
  return proxy;
}

/** The node that opened the session. */
export const ordinal = (sid) => Buffer.from(sid, "base64url").readUInt16BE(0);
