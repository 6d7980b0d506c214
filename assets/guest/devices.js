// Camera, microphone and loudspeaker of the person. Nothing is asked for unless a function is called that says so.

const WANTED = {
  camera: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } },
  microphone: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
};
const MEDIUM = { camera: 'video', microphone: 'audio' };
// The microphone goes silent first, so that the last packets are of silence.
const SILENCE_MS = 120;

/** Whether this page may have devices at all: browsers hide them on http. */
export const hasDevices = () => Boolean(globalThis.isSecureContext && navigator.mediaDevices?.getUserMedia);

/** What went wrong, by the name of the browser's error. */
export function stateOf(name) {
  if (name === 'NotAllowedError' || name === 'SecurityError') return 'refused';
  if (name === 'NotFoundError' || name === 'OverconstrainedError') return 'missing';
  if (name === 'NotReadableError' || name === 'AbortError') return 'busy';
  return 'failed';
}

/** The devices. `changed` is called when a state or a track is another one. */
export class Devices {
  camera = { state: 'off', track: null, id: null };
  microphone = { state: 'off', track: null, id: null, isMuted: false };
  #meter = null;

  constructor(changed) {
    this.changed = changed;
    if (!hasDevices()) this.camera.state = this.microphone.state = 'insecure';
  }

  /** What is sent now; a muted microphone sends nothing. */
  tracks() {
    return { audio: this.#isSending ? this.microphone.track : null, video: this.camera.track };
  }

  isOn(kind) { return Boolean(this[kind].track) && !this[kind].isMuted; }

  /** Switches these on, with one question of the browser if it has to ask for both. */
  async start(kinds) {
    const wanted = kinds.filter((kind) => !this[kind].track && !['insecure', 'asking', 'starting'].includes(this[kind].state));
    for (const kind of wanted) Object.assign(this[kind], { state: 'asking', error: null });
    this.changed();
    for (const kind of wanted) if (await isGranted(kind)) this[kind].state = 'starting';
    this.changed();
    try {
      await this.#take(wanted);
    } catch ({ name: error }) {
      if (wanted.length === 1) this.#fail(wanted[0], error);
      // Each alone: one that is refused or missing must not take the other away.
      else for (const kind of wanted) await this.#take([kind]).catch(({ name }) => this.#fail(kind, name));
    }
    this.changed();
  }

  /** Switches one on or off. */
  async toggle(kind) {
    const device = this[kind];
    if (!device.track) return this.start([kind]);
    if (kind === 'camera') return this.stop(kind);
    [device.isMuted, device.mutedAt] = [!device.isMuted, Date.now()];
    device.track.enabled = !device.isMuted;
    this.changed();
    if (device.isMuted) setTimeout(() => this.changed(), SILENCE_MS);
    return undefined;
  }

  /** Switches one off, with its light. */
  stop(kind) {
    const device = this[kind];
    device.track?.stop();
    Object.assign(device, { track: null, state: device.state === 'insecure' ? 'insecure' : 'off' });
    if (kind === 'microphone') this.#meter = null;
    this.changed();
  }

  /** Uses another device from now on. */
  async choose(kind, id) {
    const device = this[kind];
    const wasOn = Boolean(device.track);
    device.id = id;
    if (!wasOn) return;
    device.track.stop();
    device.track = null;
    await this.start([kind]);
  }

  /** The devices that can be chosen; only after one was switched on. */
  async list() {
    if (!hasDevices() || !(this.camera.track || this.microphone.track)) return [];
    return (await navigator.mediaDevices.enumerateDevices()).filter(({ deviceId }) => deviceId);
  }

  /** The level of the microphone, 0 to 1. */
  level() {
    if (!this.isOn('microphone')) return 0;
    this.#meter ??= meterOf(this.microphone.track);
    return this.#meter();
  }

  get #isSending() {
    const { track, isMuted, mutedAt } = this.microphone;
    return track && !(isMuted && Date.now() >= mutedAt + SILENCE_MS - 20);
  }

  #constraints(kind) {
    const { id } = this[kind];
    return id ? { ...WANTED[kind], deviceId: { exact: id } } : WANTED[kind];
  }

  #fail(kind, error) {
    Object.assign(this[kind], { state: stateOf(error), error });
    // A device that is gone must not be asked for again.
    if (this[kind].state === 'missing') this[kind].id = null;
  }

  async #take(kinds) {
    const wanted = Object.fromEntries(kinds.map((kind) => [MEDIUM[kind], this.#constraints(kind)]));
    for (const track of (await navigator.mediaDevices.getUserMedia(wanted)).getTracks()) {
      const kind = track.kind === 'video' ? 'camera' : 'microphone';
      const device = this[kind];
      Object.assign(device, { track, state: 'on', label: track.label, id: track.getSettings().deviceId ?? device.id, isMuted: false });
      if (kind === 'microphone') this.#meter = null;
      track.onended = () => {
        if (device.track !== track) return;
        this.stop(kind);
        device.state = 'lost';
        this.changed();
      };
    }
  }
}

const isGranted = (name) => navigator.permissions?.query({ name }).then(({ state }) => state === 'granted', () => false);

/** Measures a track that is heard nowhere. */
function meterOf(track) {
  const context = meterOf.context ??= new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 512;
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  return () => {
    if (context.state === 'suspended') context.resume();
    analyser.getFloatTimeDomainData(samples);
    return Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
  };
}
