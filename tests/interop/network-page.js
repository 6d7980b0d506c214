// The page of network.mjs: one peer connection sends 1280x720@30 and audio to the other one.
// `SECONDS` is the length of the call.

const MAX_BITRATE = 1_500_000;

/** Concealment is counted from here on, in seconds, and once more from the start. */
const CONCEALMENT_FROM = 5;

const [sender, receiver] = [0, 1].map(() => new RTCPeerConnection({ bundlePolicy: 'max-bundle' }));

/** Gives the candidates of one connection to the relay, and those that the relay makes of them to the other. */
function connectThroughRelay(connection, other, side) {
  connection.addEventListener('icecandidate', async ({ candidate }) => {
    if (!candidate?.candidate) return;
    const response = await fetch(`/candidate?side=${side}`, { method: 'POST', body: candidate.candidate });
    const relayed = await response.json();
    if (relayed) await other.addIceCandidate({ candidate: relayed, sdpMid: candidate.sdpMid });
  });
}

/** Leaves the candidates to the relay. */
const withoutCandidates = ({ type, sdp }) => ({ type, sdp: sdp.replace(/^a=candidate:.*\r\n/gm, '') });

async function statsOf(connection, type, kind) {
  const all = [...(await connection.getStats()).values()];
  return all.find((stats) => stats.type === type && (!kind || stats.kind === kind) && stats.nominated !== false);
}

/** A moving picture that needs the whole bitrate: grain over shapes, like the camera `busy` of Quintet. */
function busyPicture() {
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

const media = await navigator.mediaDevices.getUserMedia({ audio: true });
connectThroughRelay(sender, receiver, 0);
connectThroughRelay(receiver, sender, 1);
media.getAudioTracks().forEach((track) => sender.addTrack(track, media));
const video = sender.addTransceiver(busyPicture(), {
  sendEncodings: [{ maxBitrate: MAX_BITRATE }], streams: [media],
});
const h264 = RTCRtpReceiver.getCapabilities('video').codecs.filter(({ mimeType }) => !/VP|AV1|H265/.test(mimeType));
video.setCodecPreferences(h264);

// Only what is shown and heard is decoded.
const shown = document.createElement('video');
shown.autoplay = true;
document.body.append(shown);
receiver.addEventListener('track', ({ streams: [stream] }) => { shown.srcObject = stream; });

const begun = performance.now();
await sender.setLocalDescription();
await receiver.setRemoteDescription(withoutCandidates(sender.localDescription));
await receiver.setLocalDescription();
await sender.setRemoteDescription(withoutCandidates(receiver.localDescription));

let firstFrameMs = null;
let [atFirst, settled, half, last] = [null, null, null, null];
while (performance.now() - begun < SECONDS * 1000) {
  await new Promise((resolve) => { setTimeout(resolve, 50); });
  const [picture, sound, pair] = await Promise.all([
    statsOf(receiver, 'inbound-rtp', 'video'), statsOf(receiver, 'inbound-rtp', 'audio'),
    statsOf(sender, 'candidate-pair'),
  ]);
  const seconds = (performance.now() - begun) / 1000;
  last = {
    seconds, frames: picture?.framesDecoded ?? 0, frozen: picture?.totalFreezesDuration ?? 0,
    concealed: sound?.concealedSamples ?? 0, samples: sound?.totalSamplesReceived ?? 0,
    sent: pair?.bytesSent ?? 0, estimate: pair?.availableOutgoingBitrate ?? 0,
  };
  if (last.frames > 0 && !atFirst) [atFirst, firstFrameMs] = [last, seconds * 1000];
  if (seconds >= CONCEALMENT_FROM) settled ??= last;
  if (seconds >= SECONDS / 2) half ??= last;
}
const share = (from) => {
  const samples = last.samples - from.samples;
  return samples > 0 ? (100 * (last.concealed - from.concealed)) / samples : 100;
};
await fetch('/result', {
  method: 'POST',
  body: JSON.stringify({
    firstFrameMs,
    fps: atFirst ? (last.frames - atFirst.frames) / (last.seconds - atFirst.seconds) : 0,
    frozen: last.frozen,
    concealed: share(settled ?? { samples: 0, concealed: 0 }),
    concealedFromStart: share({ samples: 0, concealed: 0 }),
    sentKbps: ((last.sent - half.sent) * 8) / 1000 / (last.seconds - half.seconds),
    estimateKbps: last.estimate / 1000,
  }),
});
