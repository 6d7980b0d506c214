// The page of guest.mjs: joins SESSION as PROTOCOL.md says, with media if SENDS, and measures the call
// for SECONDS.

import {
  busyPicture, measure, relayed, report, sendH264, show, withoutCandidates,
} from './page-media.js';

// The sides of the relay.
const [QUINTET, OWN] = [0, 1];

const media = SENDS ? await navigator.mediaDevices.getUserMedia({ audio: true }) : null;
const socket = new WebSocket(`ws://${location.host}/signal`);
const send = (message) => socket.send(JSON.stringify(message));
let connection = null;

/** Tells the opener something about the peer connection. */
const signal = (to, payload) => send({ type: 'signal', session: SESSION, to, payload });

/** Gives the candidates of an offer to the relay, and those that the relay makes of them to the connection. */
async function addCandidate(line, mid) {
  const candidate = await relayed(line, QUINTET);
  if (candidate) await connection.addIceCandidate({ candidate, sdpMid: mid });
}

/** Answers the opener's offer, each time on the one connection of this call. */
async function answer(from, { generation, sdp }) {
  if (!connection) {
    connection = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    connection.addEventListener('icecandidate', async ({ candidate }) => {
      if (!candidate?.candidate) return;
      const line = await relayed(candidate.candidate, OWN);
      if (line) signal(from, { type: 'candidate', generation, candidate: line, mid: candidate.sdpMid });
    });
    show(connection);
    measure(performance.now(), SECONDS, connection, connection).then(report);
  }
  await connection.setRemoteDescription(withoutCandidates({ type: 'offer', sdp }));
  if (SENDS) {
    for (const transceiver of connection.getTransceivers()) {
      const { kind } = transceiver.receiver.track;
      if (transceiver.sender.track) continue;
      transceiver.direction = 'sendrecv';
      transceiver.sender.setStreams(media);
      await transceiver.sender.replaceTrack(kind === 'video' ? busyPicture() : media.getAudioTracks()[0]);
    }
  }
  await connection.setLocalDescription();
  const video = connection.getTransceivers().find(({ receiver }) => receiver.track.kind === 'video');
  if (SENDS) await sendH264(video);
  signal(from, { generation, ...withoutCandidates(connection.localDescription) });
  signal(from, { type: 'media', microphone: SENDS, camera: SENDS });
  for (const line of sdp.match(/^a=candidate:.*$/gm) ?? []) await addCandidate(line.slice(2).trim(), '0');
}

socket.addEventListener('open', () => send({
  type: 'hello', protocol: 1, name: 'Chromium', instance: '9f86d081884c7d65',
}));
let last = Promise.resolve();
socket.addEventListener('message', ({ data }) => {
  const message = JSON.parse(data);
  if (message.type === 'welcome') {
    setInterval(() => send({ type: 'ping' }), message.heartbeat_ms);
    send({ type: 'join', session: SESSION, wait: true });
  }
  const { from, payload } = message;
  // One after the other: a candidate may come while the offer before it is being set.
  if (payload?.type === 'offer') last = last.then(() => answer(from, payload));
  if (payload?.type === 'candidate') last = last.then(() => addCandidate(payload.candidate, payload.mid ?? '0'));
});
