// What the guest page knows of a session, without a browser: `node --test tests/guest/`.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Room, isKind, isOn, needs } from '../../assets/guest/room.js';

const MESH = { media: ['audio', 'video', 'data'], direction: 'many-to-many' };
const BROADCAST = { media: ['audio', 'video'], direction: 'one-way' };

const member = (id, more = {}) => ({
  participant: id, name: id.toUpperCase(), role: 'guest', instance: `${id}1`, presence: { state: 'here' }, ...more,
});
const steps = (todo) => todo.map((one) => [one.do, one.id ?? one.message?.type ?? one.what].filter(Boolean).join(' '));

/** A room in which `me` is, with these members. */
function roomWith(members, kind = MESH) {
  const room = new Room('town');
  room.onAbout({ open: true, kind, limit: 12, present: members.length, full: false });
  room.enter();
  room.on({ type: 'welcome', participant: 'me', name: 'Me' });
  const todo = room.on({ type: 'joined', session: 'town', kind, limit: 12, role: 'guest', participants: members });
  return { room, todo };
}

test('a kind decides what is asked for, and a viewer is asked for nothing', () => {
  assert.deepEqual(needs(BROADCAST), { camera: false, microphone: false });
  assert.deepEqual(needs(MESH), { camera: true, microphone: true });
  assert.deepEqual(needs({ media: ['audio'], direction: 'many-to-many' }), { camera: false, microphone: true });
  assert.deepEqual(needs({ media: ['video', 'data'], direction: 'one-to-one' }), { camera: true, microphone: false });
});

test('the page waits until the session is open', () => {
  const room = new Room('town');
  for (const [about, phase] of [
    [null, 'unreachable'], [{ open: false, kind: null }, 'closed'], [{ open: true, kind: MESH }, 'ready'],
    [{ open: false, kind: null }, 'closed'],
  ]) {
    room.onAbout(about);
    assert.equal(room.phase, phase);
  }
  assert.equal(isKind({ media: [], direction: 'one-way' }), false);
  assert.equal(isKind({ media: ['audio'], direction: 'around' }), false);
});

test('a new member waits for the offers of those who are here', () => {
  const { room, todo } = roomWith([member('a'), member('b', { presence: { state: 'away', silent_ms: 4000 } })]);
  assert.deepEqual(steps(todo), ['expect a', 'tell']);
  assert.equal(room.phase, 'in');
});

test('who was there first offers, also to one who is back', () => {
  const { room } = roomWith([member('a')]);
  const joined = (participant) => steps(room.on({ type: 'participant-joined', session: 'town', participant }));
  assert.deepEqual(joined(member('b')), ['offer b', 'say joined']);
  assert.deepEqual(joined(member('a', { instance: 'a2' })), ['drop a', 'offer a']);
  const presence = (state) => steps(room.on({ type: 'participant-presence', session: 'town', participant: 'a', presence: { state } }));
  assert.deepEqual(presence('away'), ['say away']);
  assert.deepEqual(presence('here'), ['say back', 'offer a', 'tell']);
});

test('a page that comes back keeps the connections with the same instances', () => {
  const { room } = roomWith([member('a'), member('b'), member('c')]);
  room.isHubUp = false;
  const sent = room.on({ type: 'welcome', participant: 'me', name: 'Me' });
  assert.deepEqual(sent[0].message, { type: 'join', session: 'town', wait: true });
  const roster = [member('a'), member('b', { instance: 'b2' })];
  const todo = steps(room.on({ type: 'joined', session: 'town', kind: MESH, role: 'guest', participants: roster }));
  assert.deepEqual(todo, ['drop c', 'say left', 'expect a', 'drop b', 'expect b', 'tell']);
});

test('each end of a session has its reason', () => {
  const errors = [['session-full', 'full'], ['not-allowed', 'refused'], ['too-many', 'busy'], ['unsupported', 'refused']];
  for (const [code, reason] of errors) {
    const room = new Room('town');
    room.onAbout({ open: true, kind: MESH });
    room.enter();
    const todo = steps(room.on({ type: 'error', code, message: 'why', session: 'town' }));
    assert.deepEqual([room.phase, room.reason, todo.at(-1)], ['over', reason, 'hang-up'], code);
  }
  const closes = [['opener-left', 'ended'], ['closed', 'ended'], ['ejected', 'ejected'], ['replaced', 'replaced']];
  for (const [reason, shown] of closes) {
    const { room } = roomWith([member('a')]);
    const todo = steps(room.on({ type: 'closed', session: 'town', reason }));
    assert.deepEqual([room.reason, todo.includes('drop a'), todo.at(-1)], [shown, true, 'hang-up'], reason);
  }
});

test('another connection with the same token ends this one, which does not fight for its place', () => {
  const { room } = roomWith([member('a')]);
  const todo = steps(room.on({ type: 'error', code: 'not-allowed', message: 'another connection …' }));
  assert.deepEqual([room.reason, todo.at(-1)], ['replaced', 'hang-up']);
});

test('a refused signal ends nothing', () => {
  const { room } = roomWith([member('a')]);
  assert.deepEqual(room.on({ type: 'error', code: 'not-allowed', session: 'town', message: 'not paired' }), []);
  assert.deepEqual(steps(room.on({ type: 'error', code: 'too-many', session: 'town', message: 'signals' })), ['tell-later']);
  assert.equal(room.phase, 'in');
});

test('media go on while the host is lost, and the page waits for the host', () => {
  const { room } = roomWith([member('a', { role: 'opener' })], BROADCAST);
  const [join] = room.on({ type: 'closed', session: 'town', reason: 'opener-lost' });
  assert.deepEqual(join.message, { type: 'join', session: 'town', wait: true });
  room.on({ type: 'waiting', session: 'town' });
  assert.deepEqual([room.phase, room.isHostLost, room.members.size], ['in', true, 1]);
  room.on({ type: 'joined', session: 'town', kind: BROADCAST, role: 'guest', participants: [member('a', { role: 'opener' })] });
  assert.equal(room.isHostLost, false);
});

test('a successor keeps the key, and opens the session again with it', () => {
  const { room } = roomWith([member('a', { role: 'opener' })]);
  const todo = room.on({ type: 'owner', session: 'town', participant: 'me', owner_key: 'key' });
  assert.deepEqual(steps(todo), ['keep', 'say owner']);
  assert.equal(room.members.get('a').role, 'guest');
  const [open] = room.on({ type: 'welcome', participant: 'me', name: 'Me' });
  assert.deepEqual(open.message, { type: 'open', session: 'town', kind: MESH, owner_key: 'key' });
  const refused = room.on({ type: 'error', code: 'id-taken', session: 'town', message: 'taken' });
  assert.deepEqual(steps(refused), ['keep', 'send join']);
  room.on({ type: 'owner', session: 'town', participant: 'a' });
  assert.deepEqual([room.me.role, room.members.get('a').role], ['guest', 'opener']);
});

test('messages of other sessions, and of a later version, are ignored', () => {
  const { room } = roomWith([member('a')]);
  assert.deepEqual(room.on({ type: 'closed', session: 'other', reason: 'closed' }), []);
  assert.deepEqual(room.on({ type: 'recording', session: 'town' }), []);
  assert.deepEqual(room.on({ type: 'signal', session: 'town', from: 'stranger', payload: { type: 'offer' } }), []);
  assert.equal(room.phase, 'in');
});

test('names of others are cleaned', () => {
  const { room } = roomWith([member('a', { name: ' Eve\u202e \u0007 L ' }), member('b', { name: '\u202e' })]);
  assert.deepEqual([...room.members.values()].map(({ name }) => name), ['Eve L', 'Guest']);
});

test('what is on is what the sender says of its track', () => {
  assert.equal(isOn(null, 'camera', '1'), true);
  assert.equal(isOn({ microphone: true, camera: false }, 'camera', '1'), false);
  const tracks = [{ id: '0', source: 'microphone', on: true }, { id: '1', source: 'camera', on: false }];
  assert.equal(isOn({ microphone: false, camera: true, tracks }, 'microphone', '0'), true);
  assert.equal(isOn({ microphone: false, camera: true, tracks }, 'camera', '1'), false);
  assert.equal(isOn({ camera: true, tracks: [] }, 'camera', '1'), false);
});

test('only the host writes in a broadcast with a chat', () => {
  const kind = { media: ['audio', 'data'], direction: 'one-way' };
  assert.equal(roomWith([], kind).room.mayWrite, false);
  assert.equal(roomWith([]).room.mayWrite, true);
  assert.equal(roomWith([], { media: ['audio'], direction: 'one-to-one' }).room.mayWrite, false);
});
