// The official client through TLS: a certificate it checks, both transports, and pages of the same site.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as path } from "node:path";
import { after, describe, test } from "node:test";
import { MODES, closeAll, connect, done, freshRoom, gets, join, publish, received } from "./lib/client.mjs";
import { startCluster } from "./lib/cluster.mjs";

const folder = mkdtempSync(path(tmpdir(), "starling-tls-"));
const [cert, key] = [path(folder, "cert.pem"), path(folder, "key.pem")];
const request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
request.push("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert);
execFileSync("openssl", request, { stdio: "ignore" });

describe("TLS on the client port", () => {
  let cluster;
  let url;
  const ca = readFileSync(cert);
  after(async () => {
    closeAll();
    await cluster?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  test("starts", async () => {
    const environment = { STARLING_SERVER__TLS__CERT: cert, STARLING_SERVER__TLS__KEY: key };
    cluster = await startCluster(1, [], { ...environment, STARLING_SERVER__ALLOWED_ORIGINS: "https://other.example" });
    url = cluster.nodes[0].url.replace("http://127.0.0.1", "https://localhost");
  });

  for (const [name, options] of Object.entries(MODES)) {
    test(`carries rooms, history and bytes with ${name}`, async () => {
      const room = freshRoom();
      const member = await connect(url, { ca, ...options });
      const publisher = await connect(url, { ca, ...options });
      await join(member, room);
      const messages = received(member, "m");
      const bytes = Buffer.alloc(200_000, 7);
      await publish(publisher, room, "m", [bytes]);
      await publish(publisher, room, "m", ["end"]);
      await gets(messages, 2);
      assert.deepEqual(messages, [bytes, "end"]);
      const { items } = await done(publisher, "room:history", { room });
      assert.deepEqual(items.map((item) => item.args[0]), [bytes, "end"]);
    });
  }

  test("is refused by a client that does not trust the certificate", async () => {
    await assert.rejects(connect(url, {}));
  });

  test("lets pages of its own site in by https only, and of others those that are listed", async () => {
    const from = (origin) => connect(url, { ca, transports: ["websocket"], extraHeaders: { origin } });
    await from(url);
    await from("https://other.example");
    await assert.rejects(from(url.replace("https", "http")));
    await assert.rejects(from("http://other.example"));
  });
});
