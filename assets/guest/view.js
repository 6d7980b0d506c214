// The document: shows what it is told, and tells which button was pressed.

import * as words from './words.js';

const HUES = ['#e69f00', '#56b4e9', '#2fb88a', '#f08a4b', '#d99bbd', '#b9a2f0'];
const GAP = 10;
const SVG = 'http://www.w3.org/2000/svg';

export const $ = (id) => document.getElementById(id);

/** An element with these properties and children. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function icon(name) {
  const [svg, use] = ['svg', 'use'].map((tag) => document.createElementNS(SVG, tag));
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

export function setText(element, text) { if (element.textContent !== text) element.textContent = text; }
function setFlag(element, name, on) { element.toggleAttribute(`data-${name}`, Boolean(on)); }

const hue = (id) => HUES[[...id].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % HUES.length];
const initials = (name) => name.split(' ').slice(0, 2).map((word) => [...word][0] ?? '').join('').toUpperCase();

/** One line at most a second for screen readers. */
const lines = [];
export function say(text) {
  lines.push(text);
  if (lines.length > 1) return;
  const next = () => {
    setText($('status'), lines[0] ?? '');
    if (lines.length) setTimeout(() => { lines.shift(); next(); }, 1000);
  };
  next();
}

/** A switch: its name stays, its state is `aria-pressed`. */
export function showSwitch(button, name, { isOn, isBusy }) {
  button.setAttribute('aria-pressed', isOn);
  button.setAttribute('aria-busy', Boolean(isBusy));
  setFlag(button, 'off', !isOn);
  button.querySelector('use').setAttribute('href', `#i-${name}${isOn ? '' : '-off'}`);
}

/** The page before and after the call: a headline, a sentence, and the button that goes on. */
export function showFront([headline, detail], { small = '', notice = '', button = '', name = false, preview = null } = {}) {
  const isNew = $('headline').textContent !== headline;
  setText($('headline'), headline);
  setText($('detail'), detail);
  setText($('small'), small);
  for (const [id, text] of [['notice', notice], ['enter', button]]) {
    setText($(id), text);
    $(id).hidden = !text;
  }
  $('name-label').hidden = !name;
  $('preview').hidden = !preview;
  setFlag($('front'), 'wide', preview);
  if (preview) {
    for (const kind of ['camera', 'microphone']) $(`pre-${kind}`).hidden = !preview.needs[kind];
    setText($('preview-text'), preview.text);
    setText($('use'), preview.use);
    $('use').hidden = !preview.use;
  }
  showScreen(false);
  return isNew;
}

export function showScreen(isCall) {
  $('front').hidden = isCall;
  $('call').hidden = !isCall;
  setFlag(document.querySelector('main'), 'call', isCall);
}

/** A sentence above everything, or none. */
export function banner(text, button = '') {
  $('banner').hidden = !text;
  if (text) setText($('banner').firstChild, text);
  $('banner-button').hidden = !button;
}

/** The tiles of the people in the call. */
export class Tiles {
  #tiles = new Map();
  #pinned = null;

  constructor() {
    new ResizeObserver(() => this.layout()).observe($('stage'));
  }

  /** Shows exactly these people, in this order: objects with `id`, `name`, `stream`, and the state of their tile. */
  show(people) {
    const ids = new Set(people.map(({ id }) => id));
    for (const [id, tile] of this.#tiles) {
      if (ids.has(id)) continue;
      tile.item.remove();
      tile.video.srcObject = null;
      this.#tiles.delete(id);
    }
    if (!ids.has(this.#pinned)) this.#pinned = null;
    for (const one of people) this.#update(this.#tiles.get(one.id) ?? this.#add(one), one);
    this.layout();
  }

  video(id) { return this.#tiles.get(id)?.video ?? null; }

  /** The video to show outside of the page: the enlarged one, or the first one. */
  get best() {
    const all = [...this.#tiles.values()].filter((tile) => !tile.isOwn && tile.video.videoWidth);
    return (this.#tiles.get(this.#pinned) ?? all[0])?.video ?? null;
  }

  level(id, level) {
    const tile = this.#tiles.get(id);
    if (!tile) return;
    if (level > 0.015) tile.heard = Date.now();
    setFlag(tile.item, 'talking', Date.now() - (tile.heard ?? 0) < 500);
    tile.item.style.setProperty('--level', Math.min(1, Math.sqrt(level) * 1.6).toFixed(2));
  }

  /** The size of a tile in pixels of the screen. */
  size(id) {
    const item = this.#tiles.get(id)?.item;
    const scale = globalThis.devicePixelRatio || 1;
    return item ? [item.offsetWidth * scale, item.offsetHeight * scale] : [0, 0];
  }

  #add({ id, isOwn }) {
    const video = make('video', { playsInline: true, autoplay: true, muted: isOwn });
    video.setAttribute('playsinline', '');
    const [face, state] = [make('span', { className: 'face', ariaHidden: 'true' }), make('p', { className: 'state' })];
    const [bars, name] = [make('i'), make('span')];
    const pin = make('button', { className: 'pin', textContent: '⤢' });
    const item = make('li', { className: `tile${isOwn ? ' own' : ''}` }, video, face, state, make('div', { className: 'label' }, icon('mic-off'), bars, name), pin);
    face.style.setProperty('--hue', hue(id));
    const tile = { item, video, face, state, name, bars, muted: item.querySelector('svg'), pin, isOwn };
    video.onresize = () => this.#showVideo(tile);
    video.onemptied = video.onresize;
    pin.onclick = () => { this.#pinned = this.#pinned === id ? null : id; this.layout(); };
    item.ondblclick = pin.onclick;
    this.#tiles.set(id, tile);
    $('tiles').append(item);
    return tile;
  }

  #update(tile, { name, label, stream, isMuted, hasVideo, state }) {
    tile.item.setAttribute('aria-label', [name, state, isMuted && 'muted'].filter(Boolean).join(', '));
    setText(tile.face, initials(name) || '?');
    setText(tile.name, label);
    setText(tile.state, state);
    tile.muted.toggleAttribute('hidden', !isMuted);
    tile.bars.hidden = isMuted;
    tile.pin.ariaLabel = `Enlarge ${name}`;
    tile.hasVideo = hasVideo;
    if (tile.video.srcObject !== stream) tile.video.srcObject = stream;
    this.#showVideo(tile);
  }

  #showVideo(tile) { setFlag(tile.item, 'video', tile.hasVideo && tile.video.videoWidth > 0); }

  layout() {
    const [width, height] = [$('stage').clientWidth, $('stage').clientHeight];
    const all = [...this.#tiles.entries()];
    if (!width || !height || !all.length) return;
    const others = all.filter(([, tile]) => !tile.isOwn);
    // With one other person the own tile floats above.
    const floats = others.length === 1 && all.length === 2 && this.#pinned === null;
    const pinned = all.find(([id]) => id === this.#pinned);
    const rest = (floats ? others : all).filter((one) => one !== pinned);
    const strip = pinned && rest.length ? Math.min(130, height / 4) : 0;
    if (pinned) place(pinned[1], 0, 0, width, height - (strip && strip + GAP));
    const rects = pinned ? row(rest.length, width, height - strip, strip) : grid(rest.length, width, height);
    rest.forEach(([, tile], at) => place(tile, ...rects[at]));
    for (const [, tile] of all) tile.item.classList.toggle('small', tile.isOwn && (floats || Boolean(pinned)));
    if (floats) {
      const own = Math.max(104, Math.min(220, width / 4));
      place(all.find(([, tile]) => tile.isOwn)[1], width - own - GAP, height - own * 0.625 - GAP, own, own * 0.625);
    }
    for (const [id, { pin }] of all) {
      pin.hidden = floats || all.length < 2;
      pin.setAttribute('aria-pressed', id === this.#pinned);
    }
  }
}

function place({ item }, left, top, width, height) {
  for (const [name, value] of Object.entries({ left, top, width, height })) item.style[name] = `${Math.floor(value)}px`;
}

/** Places of tiles of the same size, as large as possible, between upright and wide. */
export function grid(count, width, height) {
  let best = { area: -1 };
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    let [w, h] = [(width - GAP * (columns - 1)) / columns, (height - GAP * (rows - 1)) / rows];
    if (count > 1) [w, h] = [Math.min(w, h * 1.78), Math.min(h, w * 1.34)];
    if (w * h > best.area) best = { area: w * h, columns, rows, w, h };
  }
  const { columns, rows, w, h } = best;
  return Array.from({ length: count }, (_, at) => {
    const line = Math.floor(at / columns);
    const inLine = line === rows - 1 ? count - columns * line : columns;
    const left = (width - inLine * w - (inLine - 1) * GAP) / 2;
    return [left + (at % columns) * (w + GAP), (height - rows * h - (rows - 1) * GAP) / 2 + line * (h + GAP), w, h];
  });
}

/** Places in one row at the bottom. */
function row(count, width, top, height) {
  const each = Math.min(height * 1.6, (width - GAP * (count - 1)) / count);
  const left = (width - count * each - (count - 1) * GAP) / 2;
  return Array.from({ length: count }, (_, at) => [left + at * (each + GAP), top, each, height]);
}

/** Nobody else is there. */
export function showAlone(sentences, canCopy) {
  $('alone').hidden = !sentences;
  if (!sentences) return;
  const [headline, detail] = $('alone').children;
  setText(headline, sentences[0]);
  setText(detail, sentences[1]);
  $('alone-copy').hidden = !canCopy;
}

/** Adds a line to the chat. Addresses become links; nothing is read as HTML. */
export function addLine({ id, name, text, at }) {
  const body = make('p');
  for (const part of text.split(/(https?:\/\/[^\s<>"]+)/)) {
    const isLink = /^https?:\/\//.test(part) && URL.canParse?.(part);
    body.append(isLink ? make('a', { href: part, textContent: part, target: '_blank', rel: 'noreferrer' }) : part);
  }
  const time = new Date(at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  const list = $('lines');
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
  list.append(make('li', {}, make('b', { textContent: id === null ? words.tile.you : name }), make('time', { textContent: time }), body));
  while (list.children.length > 500) list.firstChild.remove();
  if (isAtEnd || id === null) list.scrollTop = list.scrollHeight;
}

/** The choices of one device. */
export function showChoices(select, devices, chosen) {
  select.parentElement.hidden = devices.length === 0;
  const labels = devices.map(({ label }, at) => label || `${at + 1}`);
  select.replaceChildren(...devices.map(({ deviceId }, at) => make('option', { value: deviceId, textContent: labels[at], selected: deviceId === chosen })));
}
