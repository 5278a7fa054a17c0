// One HTTP request over a TCP connection of its own, answered as it came: no redirects, no decoding, no reuse.

import { once } from "node:events";
import { request } from "node:http";

/** `{status, headers, body}`, the body as a Buffer. */
export async function fetchRaw(url, { method = "GET", headers = {}, body } = {}) {
  const ask = request(url, { method, headers, agent: false });
  ask.end(body);
  const [answer] = await once(ask, "response");
  const parts = [];
  for await (const part of answer) parts.push(part);
  return { status: answer.statusCode, headers: answer.headers, body: Buffer.concat(parts) };
}
