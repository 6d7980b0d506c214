//! Media that arrive before the DTLS handshake is complete.

use super::{
    frames::audio_packet,
    pair::guarded,
    relay::{AUDIO, RelaySockets, is_media},
};
use bytes::Bytes;
use quintet::{
    media::{EncodedAudio, Fanout},
    model::PeerState,
};

/// Media packets that overtake the last flight of the handshake.
const EARLY: usize = 20;

#[tokio::test(start_paused = true)]
async fn media_that_overtake_the_end_of_the_handshake_are_not_lost() {
    let (sockets, mut a, mut b) = RelaySockets::between_two_endpoints(AUDIO).await;
    let relay = tokio::spawn(carry(sockets));
    // The answerer began the handshake, so the offerer completes it, and is connected first.
    a.until_state(PeerState::Connected).await;
    assert_ne!(b.state, Some(PeerState::Connected));
    let fanout = Fanout::<EncodedAudio>::default();
    a.connection.send_audio(Some(fanout.subscribe(2 * EARLY)));
    (0..2 * EARLY as u64).for_each(|number| fanout.publish(audio_packet(number)));
    b.until_state(PeerState::Connected).await;
    let mut track = guarded("a track", b.tracks.recv()).await.expect("it is alive");
    for number in 0..2 * EARLY {
        let packet = guarded("audio", track.packets.recv()).await.expect("it is alive");
        assert_eq!(packet.payload, format!("audio {number}"));
    }
    assert!(!relay.is_finished());
    relay.abort();
}

/// Relays datagrams between two endpoints that know only the relay's sockets. The first endpoint's
/// last handshake flight is held back until [`EARLY`] of its media packets were relayed, as a
/// network may reorder them.
async fn carry(mut sockets: RelaySockets) {
    let (mut waiting, mut media, mut is_over): (Vec<Bytes>, usize, bool) = (vec![], 0, false);
    loop {
        let (from, datagram) = sockets.recv().await;
        if from == 0 && !is_over && is_handshake_over(&datagram, &waiting) {
            waiting.push(datagram);
            continue;
        }
        sockets.forward(from, &datagram);
        media += usize::from(from == 0 && is_media(&datagram));
        if media == EARLY {
            is_over = true;
            for datagram in std::mem::take(&mut waiting) {
                sockets.forward(from, &datagram);
            }
        }
    }
}

/// Whether the datagram belongs to the last DTLS flight, which begins with change_cipher_spec, or
/// comes behind it (RFC 7983; RFC 5246, section 7.3).
fn is_handshake_over(datagram: &[u8], waiting: &[Bytes]) -> bool {
    match datagram.first() {
        Some(20) => true,
        Some(21..=63) => !waiting.is_empty(),
        _ => false,
    }
}
