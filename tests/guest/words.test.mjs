// The sentences of the guest page.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as words from '../../assets/guest/words.js';

const DIRECTIONS = ['one-way', 'one-to-one', 'one-to-many', 'many-to-many'];
const MEDIA = [['audio', 'video'], ['audio'], ['video'], ['data'], ['audio', 'video', 'data']];
const kinds = DIRECTIONS.flatMap((direction) => MEDIA.map((media) => ({ media, direction })));

test('every kind has a name and a button', () => {
  for (const kind of kinds) {
    assert.match(words.kindOf(kind), /^[A-Z][a-z ,]+$/);
    assert.match(words.watch(kind), /^(Watch|Listen|Read)$/);
  }
  assert.equal(words.kindOf({ media: ['video'], direction: 'one-way' }), 'Video broadcast, without sound');
  assert.equal(words.kindOf({ media: ['audio'], direction: 'many-to-many' }), 'Audio conference');
});

test('every state of the page and of a device has a sentence', () => {
  for (const phase of ['asking', 'closed', 'unreachable', 'viewer', 'speaker', 'joining', 'waiting']) {
    assert.equal(words.front[phase].length, 2, phase);
  }
  for (const reason of ['left', 'ended', 'ejected', 'full', 'refused', 'busy', 'replaced']) {
    assert.ok(words.over[reason].length === 3 && words.over[reason][2], reason);
  }
  for (const state of ['asking', 'starting', 'refused', 'missing', 'busy', 'failed', 'lost']) {
    for (const kind of ['camera', 'microphone']) {
      const sentence = words.device(kind, { state, error: 'SomeError', label: '' });
      assert.ok(sentence.includes(kind), sentence);
      assert.ok(state === 'refused' || sentence.includes('SomeError'), sentence);
    }
  }
  assert.equal(words.device('camera', { state: 'on' }), '');
});

test('permission that is missing is not called starting', () => {
  assert.match(words.device('camera', { state: 'asking' }), /browser is asking/);
  assert.match(words.device('camera', { state: 'busy', label: 'FaceCam' }), /Another program is using “FaceCam”/);
});

test('a browser without H.264 learns why, and what is left', () => {
  assert.match(words.noH264('Mozilla/5.0 … Firefox/153.0', ['audio']), /plugin.*Until then you have sound\./);
  assert.match(words.noH264('Chromium', ['audio', 'data']), /cannot show H\.264.*sound and chat\./);
  assert.doesNotMatch(words.noH264('Chromium', []), /Until then/);
});

test('counts of people read well, and viewers do not learn of each other', () => {
  assert.equal(words.people(1, { direction: 'many-to-many' }), 'Only you');
  assert.equal(words.people(3, { direction: 'many-to-many' }), '3 people');
  assert.equal(words.people(3, { direction: 'one-way' }), '');
  assert.equal(words.present(1, { direction: 'many-to-many' }), 'One person is here.');
});
