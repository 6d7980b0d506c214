// Drives headless Chromium over the DevTools protocol, through two pipes: no package is needed.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** Counts what a page asks for, and keeps its peer connections, before any script of the page runs. */
const WATCH = `
  globalThis.watched = { captures: 0, connections: [] };
  const { mediaDevices } = navigator;
  if (mediaDevices) for (const name of ['getUserMedia', 'enumerateDevices']) {
    const own = mediaDevices[name].bind(mediaDevices);
    mediaDevices[name] = (...given) => { watched.captures += 1; return own(...given); };
  }
  globalThis.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...given) { super(...given); watched.connections.push(this); }
  };`;

/** A headless Chromium with a fake camera and microphone, which it may use without a question. */
export class Browser {
  #next = 1;
  #pending = new Map();
  #listeners = new Map();

  constructor(args = []) {
    this.profile = mkdtempSync(path.join(os.tmpdir(), 'chromium-'));
    this.child = spawn(process.env.CHROMIUM ?? 'chromium', [
      '--headless=new', '--no-sandbox', `--user-data-dir=${this.profile}`, '--no-first-run', '--remote-debugging-pipe',
      '--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream', '--allow-loopback-in-peer-connection',
      '--disable-background-timer-throttling', '--disable-renderer-backgrounding', '--disable-backgrounding-occluded-windows',
      ...args,
    ], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'], detached: true });
    let rest = '';
    this.child.stdio[4].setEncoding('utf8').on('data', (data) => {
      const messages = (rest + data).split('\0');
      rest = messages.pop();
      for (const message of messages) this.#on(JSON.parse(message));
    });
  }

  /** Sends a command of the protocol. */
  send(method, params = {}, sessionId = undefined) {
    const id = this.#next++;
    this.child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => { this.#pending.set(id, { resolve, reject, method }); });
  }

  /** Opens a page as another person: in a context of its own. */
  async open(url, { width = 1280, height = 760, dark = false, mobile = false, before = '' } = {}) {
    const { browserContextId } = await this.send('Target.createBrowserContext');
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank', browserContextId, width, height });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, sessionId, targetId);
    this.#listeners.set(sessionId, (message) => page.on(message));
    for (const domain of ['Page', 'Runtime', 'Log']) await page.send(`${domain}.enable`);
    await page.send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile });
    await page.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }] });
    await page.send('Emulation.setFocusEmulationEnabled', { enabled: true });
    await page.send('Page.addScriptToEvaluateOnNewDocument', { source: WATCH + before });
    await page.send('Page.navigate', { url });
    return page;
  }

  async close() {
    try { process.kill(-this.child.pid, 'SIGKILL'); } catch { /* It has ended. */ }
    await sleep(200);
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }

  #on(message) {
    if (message.id === undefined) {
      this.#listeners.get(message.sessionId)?.(message);
      return;
    }
    const { resolve, reject, method } = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    if (message.error) reject(new Error(`${method}: ${message.error.message}`));
    else resolve(message.result);
  }
}

/** A page of the browser. `faults` has what its console reports as an error. */
class Page {
  faults = [];

  constructor(browser, session, target) { Object.assign(this, { browser, session, target }); }

  send(method, params) { return this.browser.send(method, params, this.session); }

  on({ method, params }) {
    if (method === 'Runtime.exceptionThrown') {
      this.faults.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    } else if (method === 'Log.entryAdded' && params.entry.level === 'error') {
      this.faults.push(params.entry.text);
    }
  }

  /** The value of an expression in the page; of a promise, what it resolves to. */
  async value(expression) {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', {
      expression, awaitPromise: true, returnByValue: true, userGesture: true,
    });
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description}`);
    return result.value;
  }

  /** Waits until an expression is true. Returns how long that took, in milliseconds. */
  async until(expression, seconds = 20) {
    const start = performance.now();
    while (!await this.value(`Boolean(${expression})`).catch(() => false)) {
      if (performance.now() - start > seconds * 1000) {
        const text = await this.value('document.body.innerText').catch(() => '');
        throw new Error(`it never came: ${expression}\n${text}\n${this.faults.join('\n')}`);
      }
      await sleep(20);
    }
    return performance.now() - start;
  }

  /** Presses an element that can be seen, and that nothing covers. */
  async press(selector) {
    await this.until(`(() => {
      const element = document.querySelector('${selector}');
      const { left, top, width, height } = element.getBoundingClientRect();
      const found = document.elementFromPoint(left + width / 2, top + height / 2);
      return element.checkVisibility() && element.contains(found);
    })()`);
    await this.value(`document.querySelector('${selector}').click()`);
  }

  async screenshot(file) {
    const { data } = await this.send('Page.captureScreenshot', { format: 'png' });
    writeFileSync(file, Buffer.from(data, 'base64'));
  }

  close() { return this.browser.send('Target.closeTarget', { targetId: this.target }); }
}
