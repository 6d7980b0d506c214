// Measures Chromium over the bad networks of `quintet bench network`: two peer connections of one page,
// with a UDP relay between them that loses, delays and queues packets as `--impair` does.
//
//     node tests/interop/network.mjs [--seconds 12] [--runs 1] [IMPAIRMENT...]
//
// Needs Node 20 and `chromium` (or CHROMIUM=path). Prints one line for each network.

import { spawn } from 'node:child_process';
import dgram from 'node:dgram';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';

const CASES = [
  'delay=0ms', 'loss=0.01,delay=50ms', 'loss=0.05,delay=50ms', 'loss=0.1,delay=50ms',
  'loss=0.2,delay=50ms', 'loss=0.3,delay=50ms', 'loss=0.05,delay=150ms', 'delay=10ms,jitter=30ms',
  'rate=1Mbit,queue=300ms', 'rate=500kbit,queue=300ms', 'rate=250kbit,queue=300ms',
  'rate=150kbit,queue=300ms,delay=100ms',
];

// Bytes of UDP and IPv4 headers, which count towards the rate.
const HEADER_BYTES = 28;

const UNITS = { ms: 1, s: 1000, bit: 1e-3, kbit: 1, Mbit: 1000 };

/** Parses `loss=0.05,delay=50ms`. Times are in milliseconds, rates in bits per millisecond. */
function parseImpairment(text) {
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
class Relay {
  constructor(impairment) {
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
      return new Promise((resolve) => { socket.bind(0, '127.0.0.1', resolve); });
    }));
  }

  /** Notes the address in a peer's candidate. Returns the candidate with which the other one sees it. */
  candidate(side, line) {
    const fields = line.split(' ');
    if (fields[2].toLowerCase() !== 'udp' || !/^[\d.]+$/.test(fields[4]) || this.sides[side].peer) return null;
    this.sides[side].peer = { address: fields[4], port: Number(fields[5]) };
    // The other peer sends to the socket of its own side.
    fields[4] = '127.0.0.1';
    fields[5] = String(this.sides[1 - side].socket.address().port);
    return fields.join(' ');
  }

  close() {
    this.isClosed = true;
    this.sides.forEach(({ socket }) => socket.close());
  }
}

const PAGE = '<!doctype html><title>network</title><script type="module" src="/page.js"></script>';

/** Serves the page, and takes its candidates and its result. */
function serve(relay, seconds) {
  const script = readFileSync(new URL('network-page.js', import.meta.url), 'utf8');
  return new Promise((resolve) => {
    const server = http.createServer(async (request, response) => {
      const url = new URL(request.url, 'http://localhost');
      let body = '';
      for await (const chunk of request) body += chunk;
      if (url.pathname === '/candidate') {
        response.end(JSON.stringify(relay.candidate(Number(url.searchParams.get('side')), body)));
      } else if (url.pathname === '/result') {
        response.end();
        server.result(JSON.parse(body));
      } else if (url.pathname === '/page.js') {
        response.setHeader('Content-Type', 'text/javascript');
        response.end(`globalThis.SECONDS = ${seconds};\n${script}`);
      } else {
        response.setHeader('Content-Type', 'text/html');
        response.end(PAGE);
      }
    });
    server.listen(0, '127.0.0.1', () => resolve(server));
  });
}

/** One call over one network. */
async function measure(network, seed, seconds) {
  const relay = new Relay({ ...parseImpairment(network), seed });
  await relay.start();
  const server = await serve(relay, seconds);
  const profile = mkdtempSync(path.join(os.tmpdir(), 'chromium-'));
  const chromium = spawn(process.env.CHROMIUM ?? 'chromium', [
    '--headless=new', '--no-sandbox', `--user-data-dir=${profile}`, '--no-first-run',
    '--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream',
    '--autoplay-policy=no-user-gesture-required', '--allow-loopback-in-peer-connection',
    '--disable-features=WebRtcHideLocalIpsWithMdns', '--disable-background-timer-throttling',
    `http://localhost:${server.address().port}/`,
  ], { stdio: 'ignore' });
  try {
    return await new Promise((resolve, reject) => {
      server.result = resolve;
      chromium.on('error', reject);
      chromium.on('exit', () => reject(new Error('Chromium ended')));
      setTimeout(() => reject(new Error('Chromium gave no result')), (seconds + 60) * 1000).unref();
    });
  } finally {
    chromium.removeAllListeners('exit');
    chromium.kill();
    await new Promise((resolve) => { chromium.once('exit', resolve); setTimeout(resolve, 3000); });
    server.close();
    server.closeAllConnections();
    relay.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

function median(values) {
  const sorted = values.map((value) => value ?? Infinity).sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

const args = process.argv.slice(2);
const option = (name, usual) => {
  const at = args.indexOf(`--${name}`);
  return at < 0 ? usual : Number(args.splice(at, 2)[1]);
};
const [seconds, runs] = [option('seconds', 12), option('runs', 1)];
console.log(`Chromium to itself, 1280x720@30, calls of ${seconds} s, medians of ${runs}`);
console.log(`${'network (each way)'.padEnd(38)}    first   fps frozen s concealed% (start) kbit/s estimate`);
for (const network of args.length ? args : CASES) {
  const results = [];
  for (let run = 1; run <= runs; run += 1) results.push(await measure(network, run * 2, seconds));
  const of = (name) => median(results.map((result) => result[name]));
  const first = Number.isFinite(of('firstFrameMs')) ? `${of('firstFrameMs').toFixed(0)} ms` : 'none';
  console.log([
    network.padEnd(38), first.padStart(8), of('fps').toFixed(1).padStart(5),
    of('frozen').toFixed(1).padStart(8), of('concealed').toFixed(2).padStart(10),
    of('concealedFromStart').toFixed(2).padStart(7), of('sentKbps').toFixed(0).padStart(6),
    of('estimateKbps').toFixed(0).padStart(8),
  ].join(' '));
}
