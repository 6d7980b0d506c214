//! The statistics of connections: each end's figures agree with those of the other.

use quintet::{
    media::{EncodedAudio, Fanout},
    model::{
        CandidatePairStats, CandidateType,
        Direction::{RecvOnly, SendOnly, SendRecv},
        DtlsTransportState, IceTransportState, InboundRtpStats, Media, OutboundRtpStats, PeerMedia,
        PerChannel, PerSource, RemoteInboundRtpStats, RtcStats,
    },
};

use super::{
    frames::{audio_packet, frame, keyframe_request, next_frame},
    pair::{Endpoint, Pair, audio_video, guarded},
};

/// Video in one direction, which a sender's report and a receiver's have different members for.
const VIDEO: [PeerMedia; 2] = [video(SendOnly), video(RecvOnly)];

const fn video(direction: quintet::model::Direction) -> PeerMedia {
    PeerMedia {
        sections: PerSource { camera: Some(direction), microphone: None },
        channels: PerChannel::NONE,
    }
}

/// The streams that an endpoint sends.
pub(crate) fn outbound(end: &Endpoint) -> Vec<OutboundRtpStats> {
    select(end, |object| {
        let RtcStats::OutboundRtp(stream) = object else { return None };
        Some(stream)
    })
}

/// The bits on the wire that an end has sent so far, without padding.
pub(crate) fn sent_bits(end: &Endpoint) -> f64 {
    let bytes = outbound(end).into_iter().map(|stream| {
        // UDP, IPv4, and the tag of SRTP.
        stream.bytes_sent + stream.header_bytes_sent + 44 * stream.packets_sent
    });
    bytes.sum::<u64>() as f64 * 8.0
}

pub(super) fn inbound(end: &Endpoint) -> Vec<InboundRtpStats> {
    select(end, |object| {
        let RtcStats::InboundRtp(stream) = object else { return None };
        Some(*stream)
    })
}

fn remote_inbound(end: &Endpoint) -> Vec<RemoteInboundRtpStats> {
    select(end, |object| {
        let RtcStats::RemoteInboundRtp(stream) = object else { return None };
        Some(stream)
    })
}

fn candidate_pair(end: &Endpoint) -> CandidatePairStats {
    let pairs = select(end, |object| {
        let RtcStats::CandidatePair(pair) = object else { return None };
        Some(pair)
    });
    pairs.into_iter().next().expect("a candidate pair")
}

fn select<T>(end: &Endpoint, kind: impl Fn(RtcStats) -> Option<T>) -> Vec<T> {
    end.connection.stats().into_iter().filter_map(kind).collect()
}

/// Checks the statistics of a pair of which one end has sent video for some seconds over a network
/// that loses a tenth and delays by 50 ms in each direction, and is idle now. `arrived` different
/// packets have arrived.
pub(super) fn check_stats(pair: &Pair, arrived: u64) {
    let (sent, received) = (outbound(&pair.a).remove(0), inbound(&pair.b).remove(0));
    println!("{sent:?}\n{received:?}");
    assert_eq!((sent.ssrc, sent.kind), (received.ssrc, received.kind));
    let first = sent.packets_sent - sent.retransmitted_packets_sent;
    let repaired = received.retransmitted_packets_received;
    let announced = (received.packets_received - repaired) as i64 + received.packets_lost;
    assert!(received.packets_lost as u64 >= first / 20, "a tenth is lost");
    // The last packets may be among those that were lost, and no later one announces them.
    assert!((first as i64 - 4..=first as i64).contains(&announced), "{first} and {announced}");
    assert!(received.packets_received >= arrived && received.bytes_received < sent.bytes_sent);
    // Every feedback packet that arrived was sent, and a tenth of them is lost.
    assert!(received.nack_count > 10 && sent.nack_count > received.nack_count / 2);
    assert!(sent.nack_count <= received.nack_count && sent.pli_count <= received.pli_count);
    let ours = inbound(&pair.a).iter().map(|stream| stream.nack_count).sum::<u64>();
    assert_eq!(ours, 0, "this end asks for nothing");

    let report = remote_inbound(&pair.a).remove(0);
    println!("{report:?}");
    assert_eq!(Some(&report.id), sent.remote_id.as_ref());
    // Most of the lost packets arrive again before they are reported.
    let share = report.packets_lost as f64 / first as f64;
    assert!(share > 0.0 && share < 0.2, "{share} of the packets are reported lost");
    let time = report.round_trip_time.expect("two pairs of reports were exchanged");
    assert!((0.1..0.4).contains(&time), "{time} s between reports");
    for end in [&pair.a, &pair.b] {
        let path = candidate_pair(end);
        let mean = path.total_round_trip_time / path.responses_received as f64;
        // The mean of times of 0.1 s may be rounded to a little less.
        assert!((0.0999..0.4).contains(&mean), "{mean} s between checks: {path:?}");
        assert!(path.current_round_trip_time >= Some(0.1), "{path:?}");
        assert!(path.responses_received < path.requests_sent, "some are lost: {path:?}");
    }
    let (there, back) = (candidate_pair(&pair.a), candidate_pair(&pair.b));
    assert!(there.packets_sent > first && there.bytes_sent > sent.bytes_sent);
    assert!(back.packets_received < there.packets_sent);
    assert!(back.packets_received > there.packets_sent * 8 / 10);
}

#[tokio::test]
async fn each_end_reports_its_direction_its_path_and_its_codecs() {
    let (frames, packets) = (Fanout::default(), Fanout::<EncodedAudio>::default());
    let mut pair = Pair::connected(audio_video(SendRecv), audio_video(SendRecv)).await;
    pair.a.connection.send_video(Some(frames.subscribe(8)));
    pair.b.connection.send_audio(Some(packets.subscribe(64)));
    keyframe_request(&frames).await;
    frames.publish(frame(1, true, 100));
    (0..10).for_each(|number| packets.publish(audio_packet(number)));
    let mut video = guarded("video", pair.b.tracks.recv()).await.unwrap();
    next_frame(&mut video.packets).await;
    let mut audio = guarded("audio", pair.a.tracks.recv()).await.unwrap();
    for _ in 0..10 {
        guarded("audio", audio.packets.recv()).await.unwrap();
    }
    let (sent, received) = (outbound(&pair.a), inbound(&pair.a));
    assert_eq!((sent.len(), received.len()), (1, 1), "{sent:?} {received:?}");
    assert_eq!((sent[0].kind, sent[0].frames_sent, sent[0].nack_count), (Media::Video, Some(1), 0));
    assert_eq!((received[0].kind, received[0].ssrc), (Media::Audio, audio.ssrc));
    assert_eq!((received[0].packets_received, received[0].packets_lost), (10, 0));
    assert_eq!((received[0].bytes_received, received[0].pli_count), (70, None));
    assert_eq!(inbound(&pair.b)[0].packets_received, sent[0].packets_sent);

    let report = pair.a.connection.stats();
    let transport = report.iter().find_map(|object| {
        let RtcStats::Transport(transport) = object else { return None };
        Some(transport)
    });
    let transport = transport.expect("a transport");
    let ice_states = [IceTransportState::Connected, IceTransportState::Completed];
    assert!(transport.ice_state.is_some_and(|state| ice_states.contains(&state)), "{transport:?}");
    assert_eq!(transport.dtls_state, DtlsTransportState::Connected);
    let path = candidate_pair(&pair.a);
    assert_eq!(transport.selected_candidate_pair_id, Some(path.id));
    assert!(path.packets_received > 10 && path.current_round_trip_time < Some(1.0));
    let candidates: Vec<_> = report
        .iter()
        .filter_map(|object| {
            let (RtcStats::LocalCandidate(one) | RtcStats::RemoteCandidate(one)) = object else {
                return None;
            };
            Some(one)
        })
        .collect();
    let ids: Vec<_> = candidates.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, [&path.local_candidate_id, &path.remote_candidate_id]);
    assert!(candidates.iter().all(|one| one.candidate_type == CandidateType::Host && one.port > 0));
    let codecs = report.iter().filter_map(|object| {
        let RtcStats::Codec(codec) = object else { return None };
        Some((codec.id.as_str(), codec.mime_type.as_str()))
    });
    let expected = [(&*sent[0].codec_id, "video/H264"), (&*received[0].codec_id, "audio/opus")];
    assert!(codecs.eq(expected), "{report:?}");
}

#[tokio::test]
async fn a_keyframe_request_counts_at_the_end_that_asks_and_at_the_end_that_is_asked() {
    let frames = Fanout::default();
    let mut pair = Pair::connected(VIDEO[0], VIDEO[1]).await;
    pair.a.connection.send_video(Some(frames.subscribe(8)));
    keyframe_request(&frames).await;
    frames.publish(frame(1, true, 100));
    let mut track = guarded("a track", pair.b.tracks.recv()).await.unwrap();
    next_frame(&mut track.packets).await;
    let before = outbound(&pair.a)[0].pli_count;
    frames.take_keyframe_request();
    track.keyframe_request.request();
    keyframe_request(&frames).await;
    let [asked, asks] = [outbound(&pair.a)[0].pli_count, inbound(&pair.b)[0].pli_count];
    assert_eq!((before, asked, asks), (Some(0), Some(1), Some(1)));
}
