// Measures Chromium over the bad networks of `quintet bench network`: two peer connections of one page,
// with a UDP relay between them that loses, delays and queues packets as `--impair` does.
//
//     node tests/interop/network.mjs [--seconds 12] [--runs 1] [IMPAIRMENT...]
//
// Needs Node 20 and `chromium` (or CHROMIUM=path). Prints one line for each network.

import { runPage, servePage } from './chromium.mjs';
import { Relay, parseImpairment } from './relay.mjs';

const CASES = [
  'delay=0ms', 'loss=0.01,delay=50ms', 'loss=0.05,delay=50ms', 'loss=0.1,delay=50ms',
  'loss=0.2,delay=50ms', 'loss=0.3,delay=50ms', 'loss=0.05,delay=150ms', 'delay=10ms,jitter=30ms',
  'rate=1Mbit,queue=300ms', 'rate=500kbit,queue=300ms', 'rate=250kbit,queue=300ms',
  'rate=150kbit,queue=300ms,delay=100ms',
];

/** One call over one network. */
async function measure(network, seed, seconds) {
  const relay = new Relay({ ...parseImpairment(network), seed });
  await relay.start();
  const server = await servePage('network-page.js', { SECONDS: seconds }, relay);
  try {
    return await runPage(server.url, seconds + 60, server.result);
  } finally {
    server.close();
    server.closeAllConnections();
    relay.close();
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
