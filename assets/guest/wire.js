// The WebSocket to the hub: says hello, pings, and comes back after it was lost.

const DELAYS_MS = [250, 500, 1000, 2000, 4000];
const OPEN_TIMEOUT_MS = 10000;
const MAX_BYTES = 262144;

const hex = (bytes) => [...crypto.getRandomValues(new Uint8Array(bytes))]
  .map((byte) => byte.toString(16).padStart(2, '0')).join('');

/** A clock that ticks while the page is hidden, if the browser has workers. */
function startBeat(tick) {
  try {
    const url = new URL('beat.js', import.meta.url).href;
    const policy = globalThis.trustedTypes?.createPolicy('quintet', { createScriptURL: () => url });
    const worker = new Worker(policy ? policy.createScriptURL('') : url);
    worker.onmessage = tick;
    return () => worker.terminate();
  } catch {
    const timer = setInterval(tick, 500);
    return () => clearInterval(timer);
  }
}

/**
 * The connection to a hub. Reports each message of the hub with `message`, and the loss of the socket with `down` and
 * the seconds until the next attempt.
 */
export class Wire {
  #url;
  #on;
  #hello;
  #socket = null;
  #attempts = 0;
  #heartbeat = 1500;
  #heard = 0;
  #pinged = 0;
  #opening = 0;
  #retryAt = 0;
  #stopBeat = null;

  /** `store` has the token of this tab under `token`, see `sessionStore`. */
  constructor(base, store, on) {
    this.#url = new URL('signal', base);
    this.#url.protocol = base.protocol === 'https:' ? 'wss:' : 'ws:';
    [this.store, this.#on] = [store, on];
  }

  /** Connects. The instance is that of this load of the page. */
  start(name) {
    this.#hello = { type: 'hello', protocol: 1, name, instance: this.#hello?.instance ?? hex(8) };
    this.#attempts = 0;
    this.#stopBeat ??= startBeat(() => this.#tick());
    this.#connect();
  }

  /** Sends a message, if there is a socket. What is lost is negotiated again when it comes back. */
  send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /** Closes the socket for good. */
  stop() {
    this.#stopBeat?.();
    this.#stopBeat = null;
    this.#drop(1000);
  }

  /** Looks at once whether the socket still works: phones close those of hidden pages. */
  check() {
    if (!this.#stopBeat) return;
    if (!this.#socket) this.#connect();
    else if (this.#socket.readyState === WebSocket.OPEN) this.#ping();
  }

  #connect() {
    this.#drop();
    const socket = new WebSocket(this.#url);
    [this.#socket, this.#opening, this.#retryAt] = [socket, Date.now(), 0];
    socket.onopen = () => {
      const token = this.store.get('token');
      this.send(token ? { ...this.#hello, token } : this.#hello);
      this.#heard = Date.now();
    };
    socket.onmessage = ({ data }) => this.#onText(socket, data);
    socket.onclose = () => { if (socket === this.#socket) this.#lose(); };
  }

  #onText(socket, data) {
    if (socket !== this.#socket) return;
    this.#heard = Date.now();
    if (typeof data !== 'string' || data.length > MAX_BYTES) return;
    const message = JSON.parse(data);
    if (message.type === 'welcome') {
      this.#attempts = 0;
      this.#opening = 0;
      this.#heartbeat = Math.min(Math.max(message.heartbeat_ms || 1500, 500), 10000);
      this.store.set('token', message.token);
      this.#hello.name = message.name;
    }
    if (message.type !== 'pong') this.#on.message(message);
  }

  #tick() {
    const now = Date.now();
    if (!this.#socket) {
      if (now >= this.#retryAt) this.#connect();
      else this.#on.down(Math.ceil((this.#retryAt - now) / 1000));
    } else if (this.#opening) {
      if (now > this.#opening + OPEN_TIMEOUT_MS) this.#lose();
    } else if (now > this.#heard + 3 * this.#heartbeat + 500) {
      this.#lose();
    } else if (now >= this.#pinged + this.#heartbeat - 250) {
      this.#ping();
    }
  }

  #ping() {
    this.#pinged = Date.now();
    this.send({ type: 'ping' });
  }

  #lose() {
    this.#drop();
    const delay = DELAYS_MS[Math.min(this.#attempts, DELAYS_MS.length - 1)] * (0.7 + 0.3 * Math.random());
    this.#attempts += 1;
    this.#retryAt = Date.now() + delay;
    this.#on.down(Math.ceil(delay / 1000));
  }

  #drop(code) {
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    [socket.onopen, socket.onmessage, socket.onclose] = [null, null, null];
    socket.close(code);
  }
}

/** What this tab keeps for a hub. A second tab is another person, so it is not in `localStorage`. */
export function sessionStore(base) {
  const key = (name) => `quintet ${name} ${base}`;
  const kept = new Map();
  // Storage may be switched off: a reload is another person then.
  const stored = (then) => { try { return then(sessionStorage); } catch { return null; } };
  return {
    get: (name) => kept.get(name) ?? stored((storage) => storage.getItem(key(name))),
    set: (name, value) => {
      kept.set(name, value);
      stored((storage) => (value === null ? storage.removeItem(key(name)) : storage.setItem(key(name), value)));
    },
  };
}
