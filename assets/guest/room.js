// What the page knows of the session. Pure: messages of the hub in, state and what is to be done out.

import { cleanText } from './chat.js';

const MAX_NAME = 64;

const cleanName = (name) => [...cleanText(String(name ?? '')).replace(/\s+/g, ' ')].slice(0, MAX_NAME).join('') || 'Guest';

/** Whether a guest of this kind sends audio or video. */
export const sends = (kind) => kind.direction !== 'one-way';

/** Which of camera and microphone this kind needs of a guest. */
export const needs = (kind) => ({
  camera: sends(kind) && kind.media.includes('video'),
  microphone: sends(kind) && kind.media.includes('audio'),
});

/** Whether the value is a kind that this page knows. */
export const isKind = (kind) => Array.isArray(kind?.media) && kind.media.length > 0
  && ['one-way', 'one-to-one', 'one-to-many', 'many-to-many'].includes(kind.direction);

/**
 * The state of one session. `phase` is `asking`, `unreachable`, `closed`, `ready`, `joining`, `waiting`, `in` or
 * `over`; `reason` says why it is over. Each function returns what is to be done, in order, as objects with a `do`:
 * `send` a message, `offer` to a member, `expect` its offer, `drop` it, hand it a `signal`, `say` something, `keep`
 * the owner's key, `tell` the members what is sent, `hang-up`.
 */
export class Room {
  phase = 'asking';
  reason = null;
  kind = null;
  about = null;
  me = { id: '', name: '', role: 'guest' };
  members = new Map();
  /** Whether the host's seat was given up while it is awaited. */
  isHostLost = false;
  isHubUp = true;

  constructor(session, ownerKey = null) {
    this.session = session;
    this.ownerKey = ownerKey;
  }

  /** The answer of `about`, or null if the hub does not answer. */
  onAbout(about) {
    if (!['asking', 'closed', 'ready', 'unreachable'].includes(this.phase)) return [];
    if (!about) {
      this.phase = 'unreachable';
    } else {
      this.about = about;
      if (isKind(about.kind)) this.kind = about.kind;
      this.phase = about.open && this.kind ? 'ready' : 'closed';
    }
    return [];
  }

  /** The person wants to come in: the socket is opened. */
  enter() { this.phase = 'joining'; }

  /** The person goes. */
  leave() { return this.#end('left', [{ do: 'send', message: { type: 'leave', session: this.session } }]); }

  /** Looks at the link anew after the session was over. */
  again() {
    [this.phase, this.about, this.isHostLost] = ['asking', null, false];
  }

  /** A message of the hub. */
  on(message) {
    const mine = message.session === undefined || message.session === this.session;
    if (!mine || this.phase === 'over') return [];
    return this[`on_${String(message.type).replaceAll('-', '_')}`]?.(message) ?? [];
  }

  on_welcome({ participant, name }) {
    this.isHubUp = true;
    [this.me.id, this.me.name] = [participant, name];
    if (this.ownerKey && this.kind) {
      const { session, kind, ownerKey } = this;
      return [{ do: 'send', message: { type: 'open', session, kind, owner_key: ownerKey } }];
    }
    return [{ do: 'send', message: { type: 'join', session: this.session, wait: true } }];
  }

  on_waiting() {
    if (this.phase !== 'in') this.phase = 'waiting';
    return [];
  }

  on_opened(message) {
    this.ownerKey = message.owner_key;
    return [{ do: 'keep', key: this.ownerKey }, ...this.on_joined({ ...message, role: 'opener' })];
  }

  on_joined({ kind, role, participants }) {
    if (!isKind(kind)) return this.#end('refused');
    const wasIn = this.phase === 'in';
    Object.assign(this, { phase: 'in', kind, isHostLost: false });
    this.me.role = role;
    const todo = [];
    const here = new Set(participants.map(({ participant }) => participant));
    for (const id of [...this.members.keys()]) if (!here.has(id)) todo.push(...this.#remove(id, wasIn));
    for (const one of participants) todo.push(...this.#meet(one, 'expect'));
    return [...todo, { do: 'tell' }];
  }

  on_participant_joined({ participant }) {
    const isNew = !this.members.has(participant.participant);
    const todo = this.#meet(participant, 'offer');
    return isNew ? [...todo, { do: 'say', what: 'joined', name: this.members.get(participant.participant).name }] : todo;
  }

  on_participant_presence({ participant, presence }) {
    const member = this.members.get(participant);
    if (!member) return [];
    member.isAway = presence.state !== 'here';
    const say = { do: 'say', what: member.isAway ? 'away' : 'back', name: member.name };
    return member.isAway ? [say] : [say, { do: 'offer', id: participant }, { do: 'tell' }];
  }

  on_participant_renamed({ participant, name }) {
    const member = this.members.get(participant);
    if (member) member.name = cleanName(name);
    return [];
  }

  on_participant_left({ participant }) { return this.#remove(participant, true); }

  on_owner({ participant, owner_key: key }) {
    const wasHost = this.me.role === 'opener';
    for (const one of this.members.values()) one.role = one.id === participant ? 'opener' : 'guest';
    this.me.role = participant === this.me.id ? 'opener' : 'guest';
    if (this.me.role !== 'opener') return [];
    const todo = key ? [{ do: 'keep', key: this.ownerKey = key }] : [];
    return wasHost ? todo : [...todo, { do: 'say', what: 'owner' }];
  }

  on_closed({ reason }) {
    if (reason === 'opener-lost') {
      // The host's computer may have been asleep: media may still run, and the host opens the session again.
      this.isHostLost = true;
      return [{ do: 'send', message: { type: 'join', session: this.session, wait: true } }];
    }
    return this.#end({ ejected: 'ejected', replaced: 'replaced' }[reason] ?? 'ended');
  }

  on_signal({ from, payload }) {
    const member = this.members.get(from);
    if (!member || !payload) return [];
    if (payload.type === 'media') member.media = payload;
    return [{ do: 'signal', id: from, payload }];
  }

  on_error({ code, message, session }) {
    // Without a session it is about the connection, for example because another one took its place.
    if (code === 'not-allowed' && session === undefined) return this.onReplaced();
    if (code === 'id-taken' && this.ownerKey) {
      this.ownerKey = null;
      return [{ do: 'keep', key: null }, { do: 'send', message: { type: 'join', session: this.session, wait: true } }];
    }
    // A signal was refused: too many, or its receiver has just left.
    const isOfSignal = ['too-many', 'not-allowed', 'bad-message'].includes(code);
    if (this.phase === 'in' && isOfSignal) return code === 'too-many' ? [{ do: 'tell-later' }] : [];
    this.detail = message;
    return this.#end({ 'session-full': 'full', 'too-many': 'busy' }[code] ?? 'refused');
  }

  /** The hub closed the socket for good: another connection has taken the place of this one. */
  onReplaced() { return this.phase === 'over' ? [] : this.#end('replaced'); }

  /** Whether the person may write into the chat. */
  get mayWrite() { return this.kind.media.includes('data') && (sends(this.kind) || this.me.role === 'opener'); }

  #meet({ participant: id, name, role, instance, presence }, how) {
    const known = this.members.get(id);
    const isSame = known?.instance === instance;
    const member = isSame ? known : { id, instance, media: null };
    Object.assign(member, { name: cleanName(name), role, isAway: presence?.state === 'away' });
    this.members.set(id, member);
    const drop = known && !isSame ? [{ do: 'drop', id }] : [];
    return member.isAway ? drop : [...drop, { do: how, id }];
  }

  #remove(id, isSaid) {
    const member = this.members.get(id);
    if (!this.members.delete(id)) return [];
    return [{ do: 'drop', id }, ...(isSaid ? [{ do: 'say', what: 'left', name: member.name }] : [])];
  }

  #end(reason, todo = []) {
    const drops = [...this.members.keys()].map((id) => ({ do: 'drop', id }));
    this.members.clear();
    [this.phase, this.reason, this.ownerKey] = ['over', reason, reason === 'replaced' ? this.ownerKey : null];
    return [...todo, ...drops, { do: 'keep', key: this.ownerKey }, { do: 'hang-up' }];
  }
}

/** Which of its media a member sends: `media` is its newest signal, `mid` names the section. */
export function isOn(media, source, mid) {
  if (!media) return true;
  const track = Array.isArray(media.tracks) ? media.tracks.find((one) => one?.id === mid) : null;
  if (Array.isArray(media.tracks)) return track?.on === true;
  return media[source] !== false;
}
