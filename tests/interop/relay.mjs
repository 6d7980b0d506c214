// A UDP relay between two peers that loses, delays and queues packets as `--impair` does.

import dgram from 'node:dgram';

// Bytes of UDP and IPv4 headers, which count towards the rate.
const HEADER_BYTES = 28;

const UNITS = { ms: 1, s: 1000, bit: 1e-3, kbit: 1, Mbit: 1000 };

/** Parses `loss=0.05,delay=50ms`. Times are in milliseconds, rates in bits per millisecond. */
export function parseImpairment(text) {
  const impairment = { loss: 0, burst: 1, delay: 0, jitter: 0, rate: Infinity, queue: 300, seed: 1 };
  for (const part of text.split(',')) {
    const [, key, number, unit] = part.match(/^(\w+)=([\d.]+)(\w*)$/) ?? [];
    if (!(key in impairment)) throw new Error(`${part} is not an impairment`);
    impairment[key] = Number(number) * (unit ? UNITS[unit] : 1);
  }
  return impairment;
}

/** Random numbers from 0 to 1 (SplitMix64), as Quintet draws them. */
function random(seed) {
  let state = BigInt(seed);
  return () => {
    state = BigInt.asUintN(64, state + 0x9e3779b97f4a7c15n);
    let mixed = state;
    mixed = BigInt.asUintN(64, (mixed ^ (mixed >> 30n)) * 0xbf58476d1ce4e5b9n);
    mixed = BigInt.asUintN(64, (mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn);
    return Number((mixed ^ (mixed >> 31n)) >> 11n) / 2 ** 53;
  };
}

/** One direction of a bad network: says when a packet arrives, or that it does not. */
class Direction {
  constructor(impairment, seed) {
    Object.assign(this, { impairment, random: random(seed), isBursting: false, freeAt: 0 });
  }

  isLost() {
    const { loss, burst } = this.impairment;
    const drawn = this.random();
    if (burst <= 1 || loss >= 1) return drawn < loss;
    const length = Math.max(burst, loss / (1 - loss));
    const lost = this.isBursting ? 1 - 1 / length : loss / (length * (1 - loss));
    this.isBursting = drawn < lost;
    return this.isBursting;
  }

  /** Milliseconds until a packet of this length arrives, or `null` if it is lost. */
  delay(bytes) {
    const { delay, jitter, rate, queue } = this.impairment;
    const [isLost, extra, now] = [this.isLost(), this.random() * jitter, performance.now()];
    if (isLost) return null;
    const begins = Math.max(this.freeAt, now);
    if (begins - now > queue) return null;
    this.freeAt = begins + ((bytes + HEADER_BYTES) * 8) / rate;
    return this.freeAt - now + delay + extra;
  }
}

/** A relay between two peers: each sees the other one at an address of the relay. */
export class Relay {
  /** Peers see each other at `address`, which is one of this machine. */
  constructor(impairment, address = '127.0.0.1') {
    this.address = address;
    this.sides = [0, 1].map((side) => ({
      socket: dgram.createSocket('udp4'),
      direction: new Direction(impairment, impairment.seed + side),
      peer: null,
    }));
  }

  async start() {
    await Promise.all(this.sides.map(({ socket }, side) => {
      const other = this.sides[1 - side];
      socket.on('message', (packet) => {
        const delay = this.sides[side].direction.delay(packet.length);
        if (delay === null) return;
        const deliver = () => {
          if (other.peer && !this.isClosed) other.socket.send(packet, other.peer.port, other.peer.address);
        };
        if (delay <= 0) deliver(); else setTimeout(deliver, delay);
      });
      return new Promise((resolve) => { socket.bind(0, this.address, resolve); });
    }));
  }

  /** Notes the address in a peer's candidate. Returns the candidate with which the other one sees it. */
  candidate(side, line) {
    const fields = line.split(' ');
    // An empty candidate is the end of candidates.
    if (fields[2]?.toLowerCase() !== 'udp' || !/^[\d.]+$/.test(fields[4]) || this.sides[side].peer) return null;
    this.sides[side].peer = { address: fields[4], port: Number(fields[5]) };
    // The other peer sends to the socket of its own side.
    fields[4] = this.address;
    fields[5] = String(this.sides[1 - side].socket.address().port);
    return fields.join(' ');
  }

  close() {
    this.isClosed = true;
    this.sides.forEach(({ socket }) => socket.close());
  }
}
