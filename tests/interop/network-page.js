// The page of network.mjs: one peer connection sends 1280x720@30 and audio to the other one.
// `SECONDS` is the length of the call.

import {
  busyPicture, measure, relayed, report, sendH264, show, withoutCandidates,
} from './page-media.js';

const [sender, receiver] = [0, 1].map(() => new RTCPeerConnection({ bundlePolicy: 'max-bundle' }));

/** Gives the candidates of one connection to the relay, and those that the relay makes of them to the other. */
function connectThroughRelay(connection, other, side) {
  connection.addEventListener('icecandidate', async ({ candidate }) => {
    if (!candidate?.candidate) return;
    const line = await relayed(candidate.candidate, side);
    if (line) await other.addIceCandidate({ candidate: line, sdpMid: candidate.sdpMid });
  });
}

const media = await navigator.mediaDevices.getUserMedia({ audio: true });
connectThroughRelay(sender, receiver, 0);
connectThroughRelay(receiver, sender, 1);
media.getAudioTracks().forEach((track) => sender.addTrack(track, media));
sendH264(sender.addTransceiver(busyPicture(), { streams: [media] }));
show(receiver);

const begun = performance.now();
await sender.setLocalDescription();
await receiver.setRemoteDescription(withoutCandidates(sender.localDescription));
await receiver.setLocalDescription();
await sender.setRemoteDescription(withoutCandidates(receiver.localDescription));

await report(await measure(begun, SECONDS, receiver, sender));
