// Serves a page, and runs it in a headless Chromium that has a fake microphone and asks for no permissions.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';

/** Opens a page and waits for the promise that `result` returns. Fails if Chromium ends, or after `seconds`. */
export async function runPage(url, seconds, result) {
  const profile = mkdtempSync(path.join(os.tmpdir(), 'chromium-'));
  const chromium = spawn(process.env.CHROMIUM ?? 'chromium', [
    '--headless=new', '--no-sandbox', `--user-data-dir=${profile}`, '--no-first-run',
    '--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream',
    '--autoplay-policy=no-user-gesture-required', '--allow-loopback-in-peer-connection',
    '--disable-features=WebRtcHideLocalIpsWithMdns', '--disable-background-timer-throttling', url,
  ], { stdio: 'ignore', detached: true });
  try {
    return await new Promise((resolve, reject) => {
      result.then(resolve, reject);
      chromium.on('error', reject);
      chromium.on('exit', () => reject(new Error('Chromium ended')));
      setTimeout(() => reject(new Error('Chromium gave no result')), seconds * 1000).unref();
    });
  } finally {
    chromium.removeAllListeners('exit');
    // Its child processes write into the profile, too.
    process.kill(-chromium.pid, 'SIGKILL');
    await new Promise((resolve) => { chromium.once('exit', resolve); setTimeout(resolve, 3000); });
    rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}

/** Has the page report what nothing catches. */
const TELL_ERRORS = `for (const name of ['error', 'unhandledrejection']) addEventListener(name, (event) =>
  fetch('/result', { method: 'POST', body: JSON.stringify({ error: String(event.reason ?? event.message) }) }));`;

/**
 * Serves `script` of this folder as a page, with these global values. Gives the page's candidates to `relay`.
 * The server's `result` resolves to what the page reports.
 */
export async function servePage(script, globals, relay) {
  let report;
  const result = new Promise((resolve, reject) => {
    report = (value) => (value.error ? reject(new Error(value.error)) : resolve(value));
  });
  const values = Object.entries(globals).map(([name, value]) => `globalThis.${name} = ${JSON.stringify(value)};`);
  const page = `<!doctype html><title>call</title><script>${values.join('')}${TELL_ERRORS}</script>
    <script type="module" src="/${script}"></script>`;
  const server = http.createServer(async (request, response) => {
    const url = new URL(request.url, 'http://localhost');
    let body = '';
    for await (const chunk of request) body += chunk;
    if (url.pathname === '/candidate') {
      response.end(JSON.stringify(relay.candidate(Number(url.searchParams.get('side')), body)));
    } else if (url.pathname === '/result') {
      response.end();
      report(JSON.parse(body));
    } else if (/^\/[a-z-]+\.js$/.test(url.pathname)) {
      response.setHeader('Content-Type', 'text/javascript');
      response.end(readFileSync(new URL(`.${url.pathname}`, import.meta.url)));
    } else {
      response.setHeader('Content-Type', 'text/html');
      response.end(page);
    }
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return Object.assign(server, { result, url: `http://localhost:${server.address().port}/` });
}
