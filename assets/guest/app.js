// The page of a session: joins it as PROTOCOL.md says, like any program.

import { Letters, fits, numbers } from './chat.js';
import { Devices, hasDevices } from './devices.js';
import { Member } from './member.js';
import { Room, isOn, needs, sends } from './room.js';
import { $, Tiles, addLine, banner, say, setText, showAlone, showChoices, showFront, showScreen, showSwitch } from './view.js';
import { Wire, sessionStore } from './wire.js';
import * as words from './words.js';

const ASK_MS = 3000;
const LEVELS_MS = 200;
const STEPS = [0, 160, 320, 480, 640, 960, 1280, 1920];

const base = new URL('../../', import.meta.url);
const session = decodeURIComponent(location.pathname.replace(/\/$/, '').split('/s/').pop());
const link = new URL(`s/${session}`, base).href;
const store = sessionStore(base.href);
const devices = new Devices(() => onDevices());
const wire = new Wire(base, store, { message: (message) => perform(room.on(message)), down: onDown });
const tiles = new Tiles();
const room = new Room(session, store.get(`owner ${session}`));
const number = numbers(() => Date.now());
const own = new MediaStream();
/** What the page has of each member, by participant: the connection, and the letters to its instance. */
const peers = new Map();
let [soundHeld, asking, wakeLock, unread, speaker] = [false, null, null, 0, ''];

// --- What the room wants done ---

function perform(todo) {
  const wasIn = !$('call').hidden;
  for (const one of todo) ({
    send: () => wire.send(one.message),
    offer: () => peer(one.id).link.offer(),
    expect: () => peer(one.id).link.expect(),
    signal: () => peer(one.id).link.signal(one.payload),
    drop: () => drop(one.id),
    say: () => say(words.said[one.what](one.name)),
    keep: () => store.set(`owner ${session}`, one.key),
    tell: () => tellAll(true),
    'tell-later': () => setTimeout(() => tellAll(true), 3000),
    'hang-up': hangUp,
  })[one.do]();
  render();
  if (room.phase === 'in' && !wasIn) $('session').focus();
}

function peer(id) {
  if (peers.has(id)) return peers.get(id);
  const letters = new Letters();
  const cx = {
    kind: room.kind, sends: sends(room.kind), stream: own, iceServers: [], tracks: () => devices.tracks(),
    signal: (payload) => wire.send({ type: 'signal', session, to: id, payload }),
    shown: () => shown(id), changed: () => render(),
    channel: (channel) => listen(id, letters, channel),
  };
  const made = { letters, link: new Member(cx, room.me.id > id) };
  peers.set(id, made);
  return made;
}

function drop(id) {
  peers.get(id)?.link.close();
  peers.delete(id);
}

function hangUp() {
  wire.stop();
  for (const kind of ['camera', 'microphone']) devices.stop(kind);
  wakeLock?.release?.();
  wakeLock = null;
  if (document.fullscreenElement) fullScreen();
  $('menu').close();
}

function onDown(seconds) {
  room.isHubUp = false;
  if (room.phase === 'in') banner(words.banner.hub(seconds));
  else render();
}

// --- The chat ---

function listen(id, letters, channel) {
  channel.onopen = () => letters.open((text) => channel.send(text));
  channel.onclose = () => letters.close();
  channel.onmessage = ({ data }) => {
    const text = letters.receive(data);
    if (text && (sends(room.kind) || room.members.get(id).role === 'opener')) show(id, text);
  };
}

function show(id, text) {
  const name = room.members.get(id)?.name;
  addLine(name ?? words.tile.you, text, !name);
  if (!name) return;
  say(words.said.text(name, text));
  if ($('chat').hidden) unread += 1;
  render();
}

function write() {
  const text = $('text').value.trim();
  if (!fits(text)) return;
  if (!peers.size) return say(words.noReader);
  const at = number();
  for (const { letters } of peers.values()) if (letters.say(at, text)) say(words.said.lost);
  show(null, text);
  $('text').value = '';
}

function toggleChat(open = $('chat').hidden) {
  $('chat').hidden = !open;
  $('chat-open').setAttribute('aria-expanded', open);
  if (open) {
    unread = 0;
    $('lines').scrollTop = $('lines').scrollHeight;
    (room.mayWrite ? $('text') : $('chat-close')).focus();
  } else {
    $('chat-open').focus();
  }
  render();
}

// --- Devices, and what is sent ---

function onDevices() {
  const { video } = devices.tracks();
  for (const track of own.getTracks()) if (track !== video) own.removeTrack(track);
  if (video) own.addTrack(video);
  for (const { link: one } of peers.values()) one.setTracks();
  if ($('mirror').srcObject !== own) $('mirror').srcObject = own;
  $('mirror').toggleAttribute('data-on', Boolean(video));
  render();
}

async function toggle(kind) {
  if (!needs(room.kind)[kind] || !hasDevices()) return;
  await devices.toggle(kind);
  if (room.phase !== 'in') return;
  say(words.said.device(kind, devices.isOn(kind)));
}

function tellAll(again) { for (const { link: one } of peers.values()) one.tell(again); }

/** At which size a member's video is shown, in pixels of the screen. */
function shown(id) {
  const [width, height] = tiles.size(id).map((size) => STEPS.find((step) => step >= size) ?? STEPS.at(-1));
  return width && height ? { width, height } : null;
}

// --- What is shown ---

function render() {
  setText($('kind'), room.kind ? words.kindOf(room.kind) : '');
  setText($('people'), room.phase === 'in' ? words.people(room.members.size + 1, room.kind) : '');
  document.title = `${session} · Quintet`;
  if (room.phase === 'in') renderCall();
  else renderFront();
  for (const kind of ['camera', 'microphone']) {
    const state = { isOn: devices.isOn(kind), isBusy: ['asking', 'starting'].includes(devices[kind].state) };
    for (const prefix of ['', 'pre-']) showSwitch($(prefix + kind), kind === 'camera' ? 'cam' : 'mic', state);
  }
  const notes = ['camera', 'microphone'].map((kind) => words.device(kind, devices[kind])).filter(Boolean).join(' ');
  setText($('device-note'), notes);
  if (room.phase !== 'in') banner('');
  else if (soundHeld) banner(words.banner.sound, true);
  else if (room.isHubUp) banner(room.isHostLost ? words.banner.opener : notes);
}

function renderFront() {
  const { kind, phase, reason } = room;
  if (phase === 'over') {
    const [headline, detail, button] = words.over[reason];
    if (showFront([headline, detail || room.detail], { button })) $('headline').focus();
  } else if (phase !== 'ready') {
    showFront(words.front[room.isHubUp ? phase : 'unreachable'], { button: isEntering() ? 'Leave' : '' });
  } else if (room.about.full) {
    showFront(words.over.full, { button: words.over.full[2] });
  } else {
    const rest = kind.media.filter((medium) => medium !== 'video' || canShowH264());
    const noVideo = rest.length < kind.media.length && words.noH264(navigator.userAgent, rest);
    const [wanted, isViewer] = [needs(kind), !sends(kind)];
    const speaks = wanted.camera || wanted.microphone;
    if (rest.length === 0) showFront([words.unable.h264, noVideo], { button: words.over.full[2] });
    else showFront(words.front[isViewer ? 'viewer' : 'speaker'], {
      small: words.present(room.about.present, kind),
      notice: [noVideo, speaks && !hasDevices() && words.insecure(room.about.https && location.host + location.pathname)].filter(Boolean).join(' '),
      button: isViewer ? words.watch(kind) : 'Join',
      name: !isViewer,
      preview: speaks && hasDevices() ? previewOf(wanted) : null,
    });
  }
}

function previewOf(wanted) {
  const [camera, microphone] = [devices.isOn('camera'), devices.isOn('microphone')];
  const isIdle = devices.camera.state === 'off' && devices.microphone.state === 'off';
  return { needs: wanted, text: words.preview(wanted, camera, microphone), use: isIdle ? words.use(wanted) : '' };
}

function renderCall() {
  const { kind } = room;
  const wanted = needs(kind);
  showScreen(true);
  for (const name of ['camera', 'microphone']) $(name).hidden = !wanted[name] || !hasDevices();
  $('chat-open').hidden = !kind.media.includes('data');
  $('full').hidden = !document.fullscreenEnabled;
  setText($('unread'), unread || '');
  [$('write').hidden, $('read-only').hidden] = [!room.mayWrite, room.mayWrite];
  const people = [...room.members.values()].map((member) => tileOf(member));
  const isMesh = kind.direction === 'many-to-many';
  showAlone(people.length ? null : words.alone[isMesh ? 'other' : 'host'], isMesh);
  if (sends(kind) && (people.length || devices.isOn('camera'))) {
    people.push({
      id: 'own', isOwn: true, name: words.tile.you, label: words.tile.you, stream: own,
      isMuted: wanted.microphone && !devices.isOn('microphone'), hasVideo: devices.isOn('camera'), state: '',
    });
  }
  tiles.show(people);
  playAll();
}

function tileOf({ id, name, role, media, isAway }) {
  const one = peers.get(id);
  const state = one?.link.state ?? 'connecting';
  const shows = (medium, source) => room.kind.media.includes(medium) && isOn(media, source, one?.link.section(medium)?.mid);
  const note = isAway && state !== 'live' ? words.tile.away : words.tile[state] ?? (one?.link.isWithoutVideo ? words.tile.noVideo : '');
  return {
    id, name, isOwn: false, label: role === 'opener' ? `${name} · ${words.tile.host}` : name, stream: one?.link.stream ?? null, state: note,
    isMuted: room.kind.media.includes('audio') && !shows('audio', 'microphone'), hasVideo: shows('video', 'camera'),
  };
}

/** Starts what has stopped. A browser that holds the sound back gets a button. */
function playAll() {
  for (const id of peers.keys()) {
    const video = tiles.video(id);
    if (video && video.sinkId !== speaker) video.setSinkId?.(speaker).catch(() => {});
    if (!video?.paused || video.muted || !video.srcObject?.getTracks().length) continue;
    video.play().catch((error) => {
      if (error.name !== 'NotAllowedError') return;
      [soundHeld, video.muted] = [true, true];
      video.play().catch(() => {});
      render();
    });
  }
}

function soundOn() {
  soundHeld = false;
  for (const id of peers.keys()) tiles.video(id).muted = false;
  render();
}

async function showLevels() {
  const level = devices.level();
  $('pre-microphone').style.setProperty('--ring', Math.min(1, level * 8).toFixed(2));
  tiles.level('own', level);
  for (const [id, one] of peers) {
    const stats = await one.link.section('audio')?.receiver.getStats().catch(() => null);
    const inbound = stats && [...stats.values()].find(({ type }) => type === 'inbound-rtp');
    if (!inbound) continue;
    const [energy, seconds] = [inbound.totalAudioEnergy - (one.energy ?? 0), inbound.totalSamplesDuration - (one.seconds ?? 0)];
    [one.energy, one.seconds] = [inbound.totalAudioEnergy, inbound.totalSamplesDuration];
    tiles.level(id, seconds > 0 ? Math.sqrt(Math.max(0, energy / seconds)) : inbound.audioLevel ?? 0);
  }
}

// --- Coming and going ---

const canShowH264 = () => !RTCRtpReceiver.getCapabilities
  || RTCRtpReceiver.getCapabilities('video')?.codecs.some(({ mimeType }) => /h264/i.test(mimeType));

const isEntering = () => ['joining', 'waiting'].includes(room.phase);

async function ask() {
  clearTimeout(asking);
  let about = null;
  try {
    const response = await fetch(`${link}/about`, { cache: 'no-store' });
    if (response.ok) about = await response.json();
    // Too many ask from this address.
    if (response.status === 429) about = room.about;
  } catch { /* The hub does not answer. */ }
  perform(room.onAbout(about));
  if (['closed', 'ready', 'unreachable'].includes(room.phase)) asking = setTimeout(ask, ASK_MS);
}

async function enter() {
  if (isEntering()) return perform(room.leave());
  if (room.phase === 'over') room.again();
  if (room.phase !== 'ready' || room.about.full) return ask();
  clearTimeout(asking);
  const name = $('name').value.trim();
  try { localStorage.setItem('quintet name', name); } catch { /* It is typed again next time. */ }
  room.enter();
  wire.start(name);
  render();
  return stayAwake();
}

async function stayAwake() { wakeLock = await navigator.wakeLock?.request('screen').catch(() => null); }

async function copy() {
  try {
    await navigator.clipboard.writeText(link);
  } catch {
    // On http there is no clipboard.
    prompt(words.copyByHand, link);
    return;
  }
  say(words.said.copied);
}

async function openMenu() {
  const all = await devices.list();
  const choices = { camera: ['videoinput', devices.camera.id], microphone: ['audioinput', devices.microphone.id], speaker: ['audiooutput', speaker] };
  for (const [name, [type, chosen]] of Object.entries(choices)) {
    showChoices($(`pick-${name}`), all.filter(({ kind }) => kind === type), chosen);
  }
  $('pip').hidden = !document.pictureInPictureEnabled || !tiles.best;
  $('keys').hidden = matchMedia('(hover: none)').matches;
  $('menu').showModal();
}

function listenToButtons() {
  const toggles = ['camera', 'microphone'].flatMap((kind) => [kind, `pre-${kind}`].map((id) => [id, () => toggle(kind)]));
  const presses = {
    ...Object.fromEntries(toggles), use: () => devices.start(['microphone', 'camera'].filter((kind) => needs(room.kind)[kind])),
    'chat-open': () => toggleChat(), 'chat-close': () => toggleChat(false), full: fullScreen, more: openMenu,
    leave: () => perform(room.leave()), 'banner-button': soundOn, copy, 'alone-copy': copy, pip,
  };
  for (const [id, then] of Object.entries(presses)) {
    $(id).onclick = (event) => { event.preventDefault(); then(); };
  }
  for (const [id, then] of [['form', enter], ['write', write]]) {
    $(id).onsubmit = (event) => { event.preventDefault(); then(); };
  }
  for (const kind of ['camera', 'microphone']) $(`pick-${kind}`).onchange = ({ target }) => devices.choose(kind, target.value);
  $('pick-speaker').onchange = ({ target }) => {
    speaker = target.value;
    render();
  };
}

function pip() {
  tiles.best?.requestPictureInPicture().catch(() => {});
  $('menu').close();
}

function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else $('stage').requestFullscreen().catch(() => {});
}

function listenToPage() {
  document.addEventListener('fullscreenchange', render);
  document.addEventListener('keydown', (event) => {
    const isTyping = event.target.closest?.('input, select, textarea, dialog');
    if (event.key === 'Escape' && !$('chat').hidden && room.phase === 'in') toggleChat(false);
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || event.repeat || room.phase !== 'in') return;
    const then = { m: () => toggle('microphone'), v: () => toggle('camera'), f: fullScreen, c: () => !$('chat-open').hidden && toggleChat() }[event.key];
    if (then) { event.preventDefault(); then(); }
  });
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState !== 'visible') return;
    wire.check();
    if (['closed', 'unreachable'].includes(room.phase)) ask();
    if (room.phase === 'in') stayAwake();
  });
  addEventListener('online', () => wire.check());
  addEventListener('pagehide', () => {
    // A host that reloads the page stays the host: its seat is kept for a minute.
    if (room.me.role !== 'opener') wire.send({ type: 'leave', session });
  });
  addEventListener('pageshow', ({ persisted }) => { if (persisted) location.reload(); });
}

function start() {
  let name = new URLSearchParams(location.search).get('name') ?? '';
  try { name ||= localStorage.getItem('quintet name') ?? ''; } catch { /* Storage is switched off. */ }
  $('name').value = name;
  listenToButtons();
  listenToPage();
  if (!globalThis.RTCPeerConnection) return showFront(words.unable.webrtc);
  setInterval(showLevels, LEVELS_MS);
  setInterval(tellAll, 5 * LEVELS_MS);
  return ask();
}

start();
