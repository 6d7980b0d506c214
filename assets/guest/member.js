// The peer connection with one member (PROTOCOL.md, "Signals"). No description is rewritten.

const OFFER_AFTER_MS = 3000;
const CONNECT_TIMEOUT_MS = 12000;
const RESTART_AFTER_MS = 3000;
const [MAX_REPLACEMENTS, REPLACEMENTS_MS] = [10, 10000];
const MAX_GENERATION = 4294967295;
const MAX_BITRATE = 1_500_000;

const fingerprint = (sdp) => /^a=fingerprint:(.*)$/m.exec(sdp ?? '')?.[1].trim().toLowerCase();

/** H.264 first, as all members have it; baseline before the profiles that some cannot show. */
export function preferH264(codecs) {
  const rank = ({ mimeType, sdpFmtpLine = '' }) => {
    if (!/\/h264$/i.test(mimeType)) return /\/(rtx|red|ulpfec|flexfec-03)$/i.test(mimeType) ? 3 : 2;
    return /profile-level-id=42/i.test(sdpFmtpLine) && /packetization-mode=1/.test(sdpFmtpLine) ? 0 : 1;
  };
  return codecs.map((codec, at) => [rank(codec), at, codec]).sort((a, b) => a[0] - b[0] || a[1] - b[1])
    .map(([, , codec]) => codec);
}

/**
 * One member. `cx` is the page: `kind`, `sends`, `stream` (names what is sent), `iceServers`, `tracks()`,
 * `shown()` (the size of the member's video on the page), and the callbacks `signal(payload)`, `changed()`,
 * `channel(channel)`.
 */
export class Member {
  state = 'connecting';
  /** The received tracks, as one stream. */
  stream = new MediaStream();
  #pc = null;
  #generation = 0;
  #isOfferer = false;
  #candidates = [];
  #timers = new Map();
  #replacements = [];
  #work = Promise.resolve();
  #isIgnoring = false;
  #sent = '';

  constructor(cx, isPolite) { [this.cx, this.isPolite] = [cx, isPolite]; }

  /** Offers a connection, unless there is one that works. */
  offer() {
    this.#clear('expect');
    if (!this.#works()) this.#later(() => this.#replace(this.#generation + 1, true));
  }

  /** Waits for the member's offer, and offers if none comes. */
  expect() {
    if (this.#works()) return;
    this.#timer('expect', OFFER_AFTER_MS, () => this.offer());
  }

  signal(payload) {
    const handle = { offer: this.#onOffer, answer: this.#onAnswer, candidate: this.#onCandidate }[payload.type];
    if (handle) this.#later(() => handle.call(this, payload));
    if (payload.type === 'media') this.#onWants(payload.wants);
  }

  /** Sends other tracks, or none. */
  async setTracks() {
    await Promise.all(this.#sections().map((one) => this.#fill(one)));
    this.tell();
  }

  /** Tells the member what is sent now and what is shown, if that has changed or `again`. */
  tell(again = false) {
    if (this.#pc?.connectionState !== 'connected') return;
    const tracks = this.cx.tracks();
    const flows = (kind) => this.cx.sends && Boolean(tracks[kind]) && this.#flows(kind, 'send');
    const payload = { type: 'media', microphone: flows('audio'), camera: flows('video') };
    const [section, size] = [this.section('video'), this.cx.shown()];
    if (section && size) payload.wants = [{ id: section.mid, ...size }];
    const text = JSON.stringify(payload);
    if (text === this.#sent && !again) return;
    this.#sent = text;
    this.cx.signal(payload);
  }

  /** The transceiver of the member's audio or video. */
  section(kind) { return this.#sections().find((one) => one.receiver.track.kind === kind); }

  /** Whether the two have no video in common. */
  get isWithoutVideo() {
    return this.state === 'live' && this.cx.kind.media.includes('video') && !this.#flows('video', 'recv');
  }

  close() {
    for (const name of [...this.#timers.keys()]) this.#clear(name);
    this.#drop();
    this.#generation = MAX_GENERATION;
  }

  #works() { return ['connected', 'connecting', 'disconnected'].includes(this.#pc?.connectionState); }

  #sections() { return this.#pc?.getTransceivers() ?? []; }

  #flows(kind, way) { return Boolean(this.section(kind)?.currentDirection?.includes(way)); }

  /** Has a section carry the track that is sent now. */
  async #fill({ sender, receiver }) {
    const track = this.cx.sends ? this.cx.tracks()[receiver.track.kind] : null;
    if (sender.track !== track) await sender.replaceTrack(track).catch(() => {});
  }

  #drop() {
    const pc = this.#pc;
    this.#pc = null;
    if (!pc) return;
    pc.onicecandidate = pc.onconnectionstatechange = pc.ontrack = null;
    pc.close();
  }

  /** Begins the connection of this number. */
  #start(generation) {
    this.#drop();
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle', iceServers: this.cx.iceServers });
    [this.#pc, this.#generation, this.#candidates, this.#sent] = [pc, generation, [], ''];
    for (const track of this.stream.getTracks()) this.stream.removeTrack(track);
    pc.onicecandidate = ({ candidate }) => {
      const { candidate: line = '', sdpMid: mid, sdpMLineIndex } = candidate ?? {};
      this.cx.signal({ type: 'candidate', generation, candidate: line, mid: mid ?? undefined, line: sdpMLineIndex ?? undefined });
    };
    pc.ontrack = ({ track }) => {
      this.stream.addTrack(track);
      this.cx.changed();
    };
    pc.onconnectionstatechange = () => this.#onState(pc);
    if (this.cx.kind.media.includes('data')) {
      this.cx.channel(pc.createDataChannel('quintet', { negotiated: true, id: 0 }));
    }
    this.#timer('connect', CONNECT_TIMEOUT_MS, () => this.#fail());
    if (this.state === 'live') this.state = 'reconnecting';
    this.cx.changed();
    return pc;
  }

  #onState(pc) {
    const state = pc.connectionState;
    this.#clear('restart');
    if (state === 'connected') {
      this.#clear('connect');
      this.state = 'live';
      this.tell(true);
    } else if (state === 'disconnected') {
      this.state = 'reconnecting';
      if (this.#isOfferer) this.#timer('restart', RESTART_AFTER_MS, () => this.#restart());
    } else if (state === 'failed') {
      this.#fail();
    }
    this.cx.changed();
  }

  #fail() {
    if (this.state === 'connecting') this.state = 'failed';
    if (this.state === 'live') this.state = 'reconnecting';
    this.cx.changed();
    this.#later(() => this.#replace(this.#generation + 1, true));
  }

  /** Replaces the connection by one of this number. */
  async #replace(generation, offers) {
    if (generation > MAX_GENERATION) return;
    const pc = this.#start(generation);
    this.#isOfferer = offers;
    if (!offers) return;
    const { kind, sends, stream } = this.cx;
    for (const medium of ['audio', 'video'].filter((one) => kind.media.includes(one))) {
      const direction = sends ? 'sendrecv' : 'recvonly';
      const transceiver = pc.addTransceiver(medium, { direction, streams: sends ? [stream] : [] });
      if (medium === 'video') this.#prefer(transceiver);
      await this.#fill(transceiver);
    }
    await this.#sendOffer(pc);
  }

  #prefer(transceiver) {
    // Chromium takes the receiver's codecs only.
    const codecs = RTCRtpReceiver.getCapabilities?.('video')?.codecs;
    if (codecs?.length) try { transceiver.setCodecPreferences(preferH264(codecs)); } catch { /* Its own order then. */ }
  }

  async #sendOffer(pc) {
    const generation = this.#generation;
    await pc.setLocalDescription();
    if (pc === this.#pc) this.cx.signal({ type: 'offer', generation, sdp: pc.localDescription.sdp });
  }

  #restart() {
    this.#later(async () => {
      if (this.#pc?.connectionState !== 'disconnected' || this.#pc.signalingState !== 'stable') return;
      this.#pc.restartIce();
      await this.#sendOffer(this.#pc);
    });
  }

  async #onOffer({ generation, sdp }) {
    if (!(generation >= this.#generation) || generation > MAX_GENERATION || generation < 1) return;
    this.#clear('expect');
    if (generation > this.#generation) {
      const now = Date.now();
      this.#replacements = this.#replacements.filter((at) => at > now - REPLACEMENTS_MS);
      if (this.#replacements.push(now) > MAX_REPLACEMENTS) return;
      await this.#replace(generation, false);
    } else {
      const known = fingerprint(this.#pc?.currentRemoteDescription?.sdp);
      if (!this.#pc || (known && known !== fingerprint(sdp))) return this.#replace(this.#generation + 1, true);
      const isGlare = this.#pc.signalingState === 'have-local-offer';
      this.#isIgnoring = isGlare && !this.isPolite;
      if (this.#isIgnoring) return;
      // The other end never took an offer of this connection, so another one may have its number.
      if (isGlare && !known) await this.#replace(generation, false);
    }
    await this.#answer(this.#pc, sdp);
  }

  async #answer(pc, sdp) {
    const [{ sends, stream }, generation] = [this.cx, this.#generation];
    await pc.setRemoteDescription({ type: 'offer', sdp });
    for (const one of sends ? this.#sections() : []) {
      one.direction = 'sendrecv';
      one.sender.setStreams?.(stream);
      await this.#fill(one);
    }
    await pc.setLocalDescription();
    if (pc !== this.#pc) return;
    this.cx.signal({ type: 'answer', generation, sdp: pc.localDescription.sdp });
    await this.#onDescribed(pc);
  }

  async #onAnswer({ generation, sdp }) {
    const pc = this.#pc;
    if (generation !== this.#generation || pc?.signalingState !== 'have-local-offer') return;
    await pc.setRemoteDescription({ type: 'answer', sdp });
    await this.#onDescribed(pc);
  }

  async #onDescribed(pc) {
    for (const candidate of this.#candidates.splice(0)) await pc.addIceCandidate(candidate).catch(() => {});
    await encode(this.section('video'), {});
    this.tell();
    this.cx.changed();
  }

  async #onCandidate({ generation, candidate, mid, line }) {
    if (generation !== this.#generation || !this.#pc || this.#isIgnoring) return;
    const init = { candidate, sdpMid: mid ?? (line === undefined ? '0' : null), sdpMLineIndex: line ?? null };
    if (!this.#pc.remoteDescription) this.#candidates.push(init);
    // One that the browser cannot use, such as of a network that it does not have.
    else await this.#pc.addIceCandidate(init).catch(() => {});
  }

  /** The member shows our video at this size at most. */
  #onWants(wants) {
    const section = this.section('video');
    if (!section || !Array.isArray(wants)) return;
    const wanted = Math.max(0, Number(wants.find((one) => one?.id === section.mid)?.height) || 0);
    const height = this.cx.tracks().video?.getSettings().height ?? wanted;
    const scale = wanted ? Math.min(4, Math.max(1, Math.floor((2 * height) / wanted) / 2)) : 1;
    this.#later(() => encode(section, { active: wanted > 0, scaleResolutionDownBy: scale }));
  }

  /** One step after the other; a step that fails means a new connection. */
  #later(step) {
    this.#work = this.#work.then(step).catch((error) => {
      console.warn('quintet:', error);
      this.#timer('connect', RESTART_AFTER_MS, () => this.#fail());
    });
  }

  #timer(name, ms, then) {
    this.#clear(name);
    this.#timers.set(name, setTimeout(() => { this.#timers.delete(name); then(); }, ms));
  }

  #clear(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

async function encode(section, change) {
  const parameters = section?.sender.getParameters();
  if (!parameters?.encodings?.length) return;
  Object.assign(parameters.encodings[0], { maxBitrate: MAX_BITRATE, ...change });
  await section.sender.setParameters(parameters).catch(() => {});
}
