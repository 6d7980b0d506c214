// The chat of the guest page with one member.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Letters, cleanText, fits, numbers } from '../../assets/guest/chat.js';

/** Letters whose channel is open, and what they send on it. */
function opened(letters = new Letters()) {
  const sent = [];
  letters.open((text) => sent.push(JSON.parse(text)));
  return { letters, sent };
}
const received = (number) => JSON.stringify({ type: 'received', number });
const text = (number, words = 'hi') => JSON.stringify({ type: 'text', number, text: words });

test('nothing is sent before the first message of the other end', () => {
  const { letters, sent } = opened();
  letters.say(5, 'hello');
  assert.deepEqual(sent, [{ type: 'received', number: 0 }]);
  letters.receive(received(0));
  assert.deepEqual(sent.slice(1), [{ type: 'received', number: 0 }, { type: 'text', number: 5, text: 'hello' }]);
});

test('a text is shown once, and answered each time', () => {
  const { letters, sent } = opened();
  assert.equal(letters.receive(text(7)), 'hi');
  assert.equal(letters.receive(text(7)), null);
  assert.equal(letters.receive(text(6)), null);
  assert.deepEqual(sent.at(-1), { type: 'received', number: 7 });
});

test('what was not received is sent again on the next channel, in order', () => {
  const { letters } = opened();
  letters.receive(received(0));
  for (const number of [1, 2, 3]) letters.say(number, `text ${number}`);
  letters.receive(received(1));
  letters.close();
  letters.say(4, 'text 4');
  const { sent } = opened(letters);
  letters.receive(received(1));
  assert.deepEqual(sent.filter(({ type }) => type === 'text').map(({ number }) => number), [2, 3, 4]);
});

test('at most sixteen are unanswered, and the oldest of more than 64 is dropped', () => {
  const { letters, sent } = opened();
  letters.receive(received(0));
  const dropped = Array.from({ length: 66 }, (_, at) => letters.say(at + 1, 'x'));
  const texts = () => sent.filter(({ type }) => type === 'text').map(({ number }) => number);
  assert.equal(texts().length, 16);
  assert.deepEqual([dropped.filter(Boolean).length, dropped.indexOf(true)], [2, 64]);
  letters.receive(received(16));
  assert.deepEqual([texts().length, texts().at(-1)], [32, 34]);
});

test('what is no message is dropped', () => {
  const { letters } = opened();
  const long = 'x'.repeat(4097);
  for (const data of ['', 'null', '[]', '{"type":"text"}', '{"type":"dance","number":1}', text(9, long), new ArrayBuffer(3), `${text(1)} `.padEnd(20000)]) {
    assert.equal(letters.receive(data), null, String(data).slice(0, 40));
  }
});

test('texts lose marks that change their direction', () => {
  assert.equal(cleanText(' a\u202eb\u0000\tc\nd\u2066 '), 'ab\tc\nd');
  assert.equal(fits('   '), false);
  assert.equal(fits('ü'.repeat(2049)), false);
  assert.equal(fits('ü'.repeat(2048)), true);
});

test('numbers grow although the clock stands still or goes back', () => {
  const times = [1000, 1000, 900, 2000];
  const next = numbers(() => times.shift());
  assert.deepEqual([next(), next(), next(), next()], [1_000_000, 1_000_001, 1_000_002, 2_000_000]);
});
