// The chat with one member: what is sent again, and what was shown already (PROTOCOL.md, "Chat"). Pure.

const MAX_UNANSWERED = 16;
const MAX_KEPT = 64;
const MAX_TEXT_BYTES = 4096;
const MAX_MESSAGE_BYTES = 16384;

const bytes = (text) => new TextEncoder().encode(text).length;

/** Without control characters and marks that change the direction of text. */
export const cleanText = (text) => text
  .replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, '').trim();

/** Whether a text can be sent. */
export const fits = (text) => text.trim() !== '' && bytes(text.trim()) <= MAX_TEXT_BYTES;

/** Numbers that grow, from a clock in milliseconds. */
export function numbers(clock) {
  let last = 0;
  return () => { last = Math.max(last + 1, Math.floor(clock() * 1000)); return last; };
}

/** The messages between this page and one instance of a member. It outlives peer connections. */
export class Letters {
  #kept = [];
  #unanswered = 0;
  #received = 0;
  #send = null;
  #heard = false;

  /** A channel has opened: `send` takes a message as a text. */
  open(send) {
    [this.#send, this.#heard, this.#unanswered] = [send, false, 0];
    this.#acknowledge();
  }

  /** The channel is gone. What was not received is sent on the next one. */
  close() { this.#send = null; }

  /** Sends a text, at once or later. Returns whether an older one was dropped for it. */
  say(number, text) {
    this.#kept.push({ type: 'text', number, text });
    const dropped = this.#kept.length > MAX_KEPT;
    // The oldest of those that were not sent yet.
    if (dropped) this.#kept.splice(this.#unanswered, 1);
    this.#flush();
    return dropped;
  }

  /** Takes a message; returns the text to show, if there is one. */
  receive(data) {
    if (typeof data !== 'string' || bytes(data) > MAX_MESSAGE_BYTES) return null;
    let message;
    try { message = JSON.parse(data); } catch { return null; }
    const number = message?.number;
    if (!Number.isFinite(number) || !['text', 'received'].includes(message.type)) return null;
    if (!this.#heard) {
      this.#heard = true;
      this.#acknowledge();
      this.#flush();
    }
    return message.type === 'text' ? this.#onText(message) : this.#onReceived(number);
  }

  #onText({ number, text }) {
    if (typeof text !== 'string' || bytes(text) > MAX_TEXT_BYTES) return null;
    const isNew = number > this.#received;
    if (isNew) this.#received = number;
    this.#acknowledge();
    return isNew ? cleanText(text) || null : null;
  }

  #onReceived(number) {
    const before = this.#kept.length;
    this.#kept = this.#kept.filter((one) => one.number > number);
    this.#unanswered = Math.max(0, this.#unanswered - (before - this.#kept.length));
    this.#flush();
    return null;
  }

  #acknowledge() { this.#send?.(JSON.stringify({ type: 'received', number: this.#received })); }

  #flush() {
    while (this.#send && this.#heard && this.#unanswered < Math.min(MAX_UNANSWERED, this.#kept.length)) {
      this.#send(JSON.stringify(this.#kept[this.#unanswered]));
      this.#unanswered += 1;
    }
  }
}
