// What the pages of these scripts share: what they send, and what they read from statistics.

const MAX_BITRATE = 1_500_000;

/** Concealment is counted from here on, in seconds, and once more from the start. */
const CONCEALMENT_FROM = 5;

/** The first statistics of that type and kind. */
async function statsOf(connection, type, kind) {
  const all = [...(await connection.getStats()).values()];
  return all.find((stats) => stats.type === type && (!kind || stats.kind === kind) && stats.nominated !== false);
}

/** A moving picture that needs the whole bitrate: grain over shapes, like the camera `busy` of Quintet. */
export function busyPicture() {
  const [width, height] = [1280, 720];
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const grain = Object.assign(document.createElement('canvas'), { width: 2 * width, height: 2 * height });
  const context = grain.getContext('2d');
  const pixels = context.createImageData(grain.width, grain.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    pixels.data.fill(Math.random() * 255, at, at + 3);
    pixels.data[at + 3] = 24;
  }
  context.putImageData(pixels, 0, 0);
  const drawing = canvas.getContext('2d');
  let frame = 0;
  setInterval(() => {
    frame += 1;
    drawing.fillStyle = '#456';
    drawing.fillRect(0, 0, width, height);
    for (let shape = 0; shape < 12; shape += 1) {
      drawing.fillStyle = `hsl(${shape * 30} 60% 50%)`;
      drawing.fillRect((shape * 170 + frame * (shape + 1)) % width, (shape * 97) % height, 160, 90);
    }
    drawing.drawImage(grain, -Math.floor(Math.random() * width), -Math.floor(Math.random() * height));
  }, 1000 / 30);
  return canvas.captureStream(30).getVideoTracks()[0];
}

/** Without candidates, which the relay gets instead. */
export const withoutCandidates = ({ type, sdp }) => ({ type, sdp: sdp.replace(/^a=candidate:.*\r\n/gm, '') });

/** Tells the relay a candidate of one side. Returns that with which the other side sees it, if it is used. */
export async function relayed(candidate, side) {
  const response = await fetch(`/candidate?side=${side}`, { method: 'POST', body: candidate });
  return response.json();
}

/** Shows the received media: only what is shown and heard is decoded. */
export function show(connection) {
  const shown = Object.assign(document.createElement('video'), { autoplay: true });
  document.body.append(shown);
  connection.addEventListener('track', ({ track, streams: [stream] }) => {
    shown.srcObject = stream ?? new MediaStream([...(shown.srcObject?.getTracks() ?? []), track]);
  });
}

/** Sends H.264 only, at `MAX_BITRATE` at most. */
export async function sendH264(transceiver) {
  const { codecs } = RTCRtpReceiver.getCapabilities('video');
  transceiver.setCodecPreferences(codecs.filter(({ mimeType }) => !/VP|AV1|H265/.test(mimeType)));
  const parameters = transceiver.sender.getParameters();
  parameters.encodings[0].maxBitrate = MAX_BITRATE;
  await transceiver.sender.setParameters(parameters);
}

/** The part of the received audio since `from` that was concealed, in per cent. */
function concealed(from, last) {
  const samples = last.samples - from.samples;
  return samples > 0 ? (100 * (last.concealed - from.concealed)) / samples : 100;
}

/**
 * Measures a call that began at `begun` until it is `seconds` old: what `receiver` gets and `sender` sends,
 * which may be the same connection.
 */
export async function measure(begun, seconds, receiver, sender) {
  let firstFrameMs = null;
  let [atFirst, settled, half, last] = [null, null, null, null];
  while (performance.now() - begun < seconds * 1000) {
    await new Promise((resolve) => { setTimeout(resolve, 50); });
    const [picture, sound, pair] = await Promise.all([
      statsOf(receiver, 'inbound-rtp', 'video'), statsOf(receiver, 'inbound-rtp', 'audio'),
      statsOf(sender, 'candidate-pair'),
    ]);
    const now = (performance.now() - begun) / 1000;
    last = {
      seconds: now, frames: picture?.framesDecoded ?? 0, frozen: picture?.totalFreezesDuration ?? 0,
      concealed: sound?.concealedSamples ?? 0, samples: sound?.totalSamplesReceived ?? 0,
      sent: pair?.bytesSent ?? 0, estimate: pair?.availableOutgoingBitrate ?? 0,
    };
    if (last.frames > 0 && !atFirst) [atFirst, firstFrameMs] = [last, now * 1000];
    if (now >= CONCEALMENT_FROM) settled ??= last;
    if (now >= seconds / 2) half ??= last;
  }
  const nothing = { samples: 0, concealed: 0 };
  return {
    firstFrameMs,
    fps: atFirst ? (last.frames - atFirst.frames) / (last.seconds - atFirst.seconds) : 0,
    frozen: last.frozen,
    concealed: concealed(settled ?? nothing, last),
    concealedFromStart: concealed(nothing, last),
    sentKbps: ((last.sent - half.sent) * 8) / 1000 / (last.seconds - half.seconds),
    estimateKbps: last.estimate / 1000,
  };
}

/** Gives the script the result. */
export async function report(result) {
  await fetch('/result', { method: 'POST', body: JSON.stringify(result) });
}
