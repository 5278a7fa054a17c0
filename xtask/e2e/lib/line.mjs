// A bad line in front of a node: a UDP proxy that cuts, loses, repeats, delays and reorders, as it is told, by a seed.

import { createSocket } from "node:dgram";
import { once } from "node:events";

/** What a line does; this is a good one. Chances are between 0 and 1, times in milliseconds. */
const GOOD = { cut: false, lost: 0, repeated: 0, overtaken: 0, delay: 0, jitter: 0 };
/** How late a datagram is that others overtake. */
const LATE_MS = 15;

export class Line {
  /** A good line to `target`, a UDP port of this machine. */
  static async to(target, seed) {
    const line = new Line(target, seed);
    line.front = createSocket("udp4").bind(0, "127.0.0.1");
    await once(line.front, "listening");
    line.port = line.front.address().port;
    line.front.on("message", (datagram, from) => line.forward(datagram, from.port));
    return line;
  }

  constructor(target, seed) {
    Object.assign(this, { target, random: seed >>> 0, backs: new Map(), counts: { passed: 0, lost: 0, spoiled: 0 } });
    this.set({});
  }

  /** Changes the line from now on. */
  set(faults) {
    this.faults = { ...GOOD, ...faults };
  }

  /** Every peer gets a socket of its own towards the node, so that answers find back. */
  forward(datagram, peer) {
    let back = this.backs.get(peer);
    if (!back) {
      back = createSocket("udp4").bind(0, "127.0.0.1");
      back.on("message", (answer) => this.pass(answer, this.front, peer));
      this.backs.set(peer, back);
    }
    this.pass(datagram, back, this.target);
  }

  pass(datagram, socket, port) {
    const { cut, lost, repeated, overtaken, delay, jitter } = this.faults;
    if (cut || this.happens(lost)) return (this.counts.lost += 1);
    const [again, late] = [this.happens(repeated), this.happens(overtaken)];
    this.counts.passed += 1;
    if (again || late) this.counts.spoiled += 1;
    const wait = delay + jitter * this.next() + (late ? LATE_MS : 0);
    const send = () => {
      for (let times = again ? 2 : 1; times > 0; times -= 1) if (!this.closed) socket.send(datagram, port, "127.0.0.1");
    };
    wait > 0 ? setTimeout(send, wait) : send();
  }

  happens(chance) {
    return chance > 0 && this.next() < chance;
  }

  /** mulberry32 */
  next() {
    this.random = (this.random + 0x6d2b79f5) >>> 0;
    let z = this.random;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  }

  close() {
    this.closed = true;
    for (const socket of [this.front, ...this.backs.values()]) socket.close();
  }
}
