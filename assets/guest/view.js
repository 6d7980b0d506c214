// The document: shows what it is told, and tells which button was pressed.

const HUES = ['#e69f00', '#56b4e9', '#2fb88a', '#f08a4b', '#d99bbd', '#b9a2f0'];
const GAP = 10;
const MAX_LINES = 500;

export const $ = (id) => document.getElementById(id);

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export function setText(element, text) { if (element.textContent !== text) element.textContent = text; }
function setFlag(element, name, on) { element.toggleAttribute(`data-${name}`, Boolean(on)); }

const hue = (id) => HUES[[...id].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % HUES.length];
const initials = (name) => name.split(' ').slice(0, 2).map(([letter]) => letter).join('').toUpperCase();

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
  setText($('notice'), notice);
  setText($('enter'), button);
  $('enter').hidden = !button;
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
export function banner(text, hasButton = false) {
  $('banner').hidden = !text;
  if (text) setText($('banner').firstChild, text);
  $('banner-button').hidden = !hasButton;
}

/** The tiles of the people in the call. */
export class Tiles {
  #tiles = new Map();

  constructor() {
    new ResizeObserver(() => this.layout()).observe($('stage'));
  }

  /** Shows exactly these people, in this order: objects with `id`, `name`, `stream`, and the state of their tile. */
  show(people) {
    const ids = new Set(people.map(({ id }) => id));
    for (const [id, { item }] of this.#tiles) {
      if (ids.has(id)) continue;
      item.remove();
      this.#tiles.delete(id);
    }
    for (const one of people) this.#update(this.#tiles.get(one.id) ?? this.#add(one), one);
    this.layout();
  }

  video(id) { return this.#tiles.get(id)?.video ?? null; }

  /** The video to show outside of the page. */
  get best() { return [...this.#tiles.values()].find(({ isOwn, video }) => !isOwn && video.videoWidth)?.video; }

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
    const item = $('tile').content.firstElementChild.cloneNode(true);
    const [video, face, state, label] = item.children;
    const [muted, bars, name] = label.children;
    const tile = { item, video, face, state, name, bars, muted, isOwn };
    item.classList.toggle('own', isOwn);
    video.muted = isOwn;
    face.style.setProperty('--hue', hue(id));
    video.onresize = video.onemptied = () => this.#showVideo(tile);
    this.#tiles.set(id, tile);
    $('tiles').append(item);
    return tile;
  }

  #update(tile, { name, label, stream, isMuted, hasVideo, state }) {
    tile.item.setAttribute('aria-label', [name, state, isMuted && 'muted'].filter(Boolean).join(', '));
    setText(tile.face, initials(name));
    setText(tile.name, label);
    setText(tile.state, state);
    for (const [part, isHidden] of [[tile.muted, !isMuted], [tile.bars, isMuted]]) part.toggleAttribute('hidden', isHidden);
    tile.hasVideo = hasVideo;
    if (tile.video.srcObject !== stream) tile.video.srcObject = stream;
    this.#showVideo(tile);
  }

  #showVideo(tile) { setFlag(tile.item, 'video', tile.hasVideo && tile.video.videoWidth > 0); }

  layout() {
    const [width, height] = [$('stage').clientWidth, $('stage').clientHeight];
    const all = [...this.#tiles.values()];
    const others = all.filter(({ isOwn }) => !isOwn);
    // With one other person the own tile floats above.
    const floats = others.length === 1;
    const placed = floats ? others : all;
    const rects = grid(placed.length, width, height);
    placed.forEach((tile, at) => place(tile, ...rects[at]));
    for (const { item, isOwn } of all) item.classList.toggle('small', isOwn && floats);
    const own = Math.max(104, Math.min(220, width / 4));
    if (floats && all.length === 2) place(this.#tiles.get('own'), width - own - GAP, height - own * 0.625 - GAP, own, own * 0.625);
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

/** Nobody else is there. */
export function showAlone(sentences, canCopy) {
  $('alone').hidden = !sentences;
  if (!sentences) return;
  sentences.forEach((text, at) => setText($('alone').children[at], text));
  $('alone-copy').hidden = !canCopy;
}

/** Adds a line to the chat. Addresses become links; nothing is read as HTML. */
export function addLine(name, text, isOwn) {
  const parts = text.split(/(https?:\/\/[^\s<>"]+)/).map((part) => (/^https?:/.test(part) ? make('a', { href: part, target: '_blank', rel: 'noreferrer' }, part) : part));
  const time = new Date().toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  const list = $('lines');
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
  list.append(make('li', {}, make('b', {}, name), make('time', {}, time), '\n', ...parts));
  if (list.children.length > MAX_LINES) list.firstChild.remove();
  if (isAtEnd || isOwn) list.scrollTop = list.scrollHeight;
}

/** The choices of one device. */
export function showChoices(select, devices, chosen) {
  select.parentElement.hidden = devices.length === 0;
  select.replaceChildren(...devices.map(({ deviceId: value, label }) => make('option', { value, selected: value === chosen }, label)));
}
