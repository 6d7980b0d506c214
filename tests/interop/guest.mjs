// Chromium as a guest of Quintet over bad networks: first it watches what Quintet sends, then Quintet what
// Chromium sends.
//
//     cargo build --release
//     node tests/interop/guest.mjs [--seconds 20] [--quintet target/release/quintet] [IMPAIRMENT...]
//
// Needs Node 20 and `chromium` (or CHROMIUM=path). Prints two lines for each network.

import net from 'node:net';
import os from 'node:os';

import { runPage, servePage } from './chromium.mjs';
import { Quintet } from './quintet.mjs';
import { Relay, parseImpairment } from './relay.mjs';

const CASES = ['delay=0ms', 'loss=0.05,delay=50ms', 'loss=0.2,delay=50ms', 'rate=500kbit,queue=300ms'];

/** Passes a WebSocket of the page on to the hub, which accepts none of other origins. */
function proxy(server, hub) {
  const { hostname, port, host } = new URL(hub);
  server.on('upgrade', (request, socket) => {
    const upstream = net.connect(Number(port), hostname, () => {
      const fields = Object.entries({ ...request.headers, host }).filter(([name]) => name !== 'origin');
      const head = fields.map(([name, value]) => `${name}: ${value}\r\n`).join('');
      upstream.write(`GET /signal HTTP/1.1\r\n${head}\r\n`);
      socket.pipe(upstream).pipe(socket);
    });
    for (const end of [socket, upstream]) end.on('error', () => { socket.destroy(); upstream.destroy(); });
  });
}

/** What Quintet's statistics say of its only participant. */
function atQuintet(program, seconds) {
  const all = program.events.filter(({ event }) => event === 'stats')
    .map((event) => ({ ...event.sessions[0]?.participants[0], at: event.at })).filter(({ rtc }) => rtc);
  const find = (stats, type, kind) => stats.rtc.find((one) => one.type === type && (!kind || one.kind === kind)) ?? {};
  const reading = (stats) => ({
    at: stats.at / 1000, frames: stats.video?.decoded ?? 0, frozen: (stats.video?.frozen_ms ?? 0) / 1000,
    concealed: stats.audio?.concealed_ms ?? 0,
    estimateKbps: (find(stats, 'candidate-pair').availableOutgoingBitrate ?? 0) / 1000,
  });
  const readings = all.map(reading);
  const [first, last] = [readings.find(({ frames }) => frames > 0), readings.at(-1)];
  const settled = readings[Math.min(5, readings.length - 1)];
  const elapsed = last.at - (first?.at ?? last.at);
  return {
    fps: elapsed > 0 ? (last.frames - first.frames) / elapsed : 0,
    frozen: last.frozen,
    concealed: (last.concealed - settled.concealed) / 10 / Math.max(1, last.at - settled.at),
    estimateKbps: last.estimateKbps, seconds,
  };
}

/** This machine's first IPv4 address that others can reach; Quintet ignores loopback candidates beside others. */
const ownAddress = Object.values(os.networkInterfaces()).flat()
  .find(({ family, internal }) => family === 'IPv4' && !internal)?.address ?? '127.0.0.1';

/** One call: Chromium watches, or sends and Quintet watches. */
async function call(network, sends, seconds) {
  const relay = new Relay(parseImpairment(network), ownAddress);
  await relay.start();
  const kind = sends ? 'audio+video/one-to-one' : 'audio+video/one-way';
  const media = sends ? ['none', 'none'] : ['busy', 'tone:440'];
  const program = new Quintet(quintet, [
    'open', '--kind', kind, '--id', 'call', '--listen', '127.0.0.1:0',
    '--camera', media[0], '--microphone', media[1], '--speaker', 'none',
  ]);
  const { hub } = await program.event('listening');
  await program.event('opened');
  const server = await servePage('guest-page.js', { SECONDS: seconds, SENDS: sends, SESSION: 'call' }, relay);
  proxy(server, hub);
  try {
    const chromium = await runPage(server.url, seconds + 60, server.result);
    return { chromium, quintet: atQuintet(program, seconds) };
  } finally {
    server.close();
    server.closeAllConnections();
    relay.close();
    program.stop();
  }
}

const args = process.argv.slice(2);
const option = (name, usual) => {
  const at = args.indexOf(`--${name}`);
  return at < 0 ? usual : args.splice(at, 2)[1];
};
const quintet = option('quintet', 'target/release/quintet');
const seconds = Number(option('seconds', 20));
console.log(`calls of ${seconds} s, 1280x720@30`);
console.log(`${'network (each way)'.padEnd(30)} sends      fps frozen s concealed% estimate kbit/s`);
for (const network of args.length ? args : CASES) {
  for (const sends of [false, true]) {
    const { chromium, quintet: own } = await call(network, sends, seconds);
    const [receiver, sender] = sends ? [own, chromium] : [chromium, own];
    console.log([
      network.padEnd(30), (sends ? 'Chromium' : 'Quintet').padEnd(8), receiver.fps.toFixed(1).padStart(6),
      receiver.frozen.toFixed(1).padStart(8), receiver.concealed.toFixed(2).padStart(10),
      sender.estimateKbps.toFixed(0).padStart(15),
    ].join(' '));
  }
}
