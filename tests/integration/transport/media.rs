//! Media that one endpoint sends arrive at the other.

use std::time::Duration;

use openh264::{
    decoder::Decoder,
    encoder::Encoder,
    formats::{YUVBuffer, YUVSource},
};
use quintet::{
    media::{self, Codec, EncodedAudio, EncodedVideo, Fanout, IncomingTrack},
    model::{
        Direction::{RecvOnly, SendOnly, SendRecv},
        Layer, PeerMedia, PerChannel, PerSource, Size, TrackId,
    },
    transport::Impairment,
};

use super::{
    frames::{audio_packet, frame, frame_at, keyframe_request, nal_units, next_frame, reassemble},
    pair::{Endpoint, Pair, audio_video, guarded},
    stats::outbound,
};

const VIDEO: PeerMedia = PeerMedia {
    sections: PerSource { camera: Some(SendRecv), microphone: None },
    channels: PerChannel::NONE,
};

async fn track(end: &mut Endpoint) -> IncomingTrack {
    guarded("a track", end.tracks.recv()).await.expect("the connection is alive")
}

/// The keyframe of a frame with a pattern in it.
fn encoded_frame() -> EncodedVideo {
    let (width, height) = (320, 180);
    let mut planes: Vec<u8> = (0..width * height).map(|at| (at * 31 % 251) as u8).collect();
    planes.resize(width * height * 3 / 2, 128);
    let frame = YUVBuffer::from_vec(planes, width, height);
    let mut encoder = Encoder::new().expect("an encoder");
    let data = encoder.encode(&frame).expect("a keyframe").to_vec();
    EncodedVideo::new(Layer::Full, media::now(), Size::new(320, 180), true, data.into())
}

#[tokio::test]
async fn a_new_peer_requests_a_keyframe_and_a_real_frame_arrives_complete() {
    let fanout = Fanout::default();
    let mut pair = Pair::open(audio_video(SendOnly), audio_video(RecvOnly));
    pair.a.connection.send_video(Some(fanout.subscribe(8)));
    keyframe_request(&fanout).await;
    fanout.publish(frame(1, true, 100));
    pair.connect().await;
    keyframe_request(&fanout).await;
    // A frame that refers to frames before the peer connected cannot be decoded, and is not sent.
    fanout.publish(frame(2, false, 100));
    let keyframe = encoded_frame();
    let (bytes, time) = (keyframe.data.clone(), keyframe.time);
    fanout.publish(keyframe);

    let mut track = track(&mut pair.b).await;
    assert_eq!((track.peer, track.codec), (quintet::model::PeerId(7), Codec::H264));
    assert_eq!((track.stream_id.as_str(), track.source_id.as_str()), ("stream-a", "video-a"));
    assert_eq!(track.id, TrackId::new("1"), "the mid of the video section");
    let packets = next_frame(&mut track.packets).await;
    assert!(packets.len() > 3, "SPS and PPS, and a fragmented slice");
    assert!(packets.iter().all(|packet| packet.timestamp == time.rtp(90_000)));
    let units = reassemble(&packets);
    assert_eq!(units, nal_units(&bytes));
    let stream: Vec<u8> =
        units.iter().flat_map(|u| [&[0, 0, 0, 1], u.as_slice()].concat()).collect();
    let mut decoder = Decoder::new().unwrap();
    let decoded = decoder.decode(&stream).unwrap().expect("a frame");
    assert_eq!(decoded.dimensions(), (320, 180));
}

#[tokio::test]
async fn audio_arrives_packet_by_packet_with_its_sample_clock() {
    let fanout = Fanout::<EncodedAudio>::default();
    let mut pair = Pair::connected(audio_video(SendRecv), audio_video(SendRecv)).await;
    pair.b.connection.send_audio(Some(fanout.subscribe(64)));
    (100..110).for_each(|number| fanout.publish(audio_packet(number)));
    let mut track = track(&mut pair.a).await;
    assert_eq!((track.codec, track.source_id.as_str()), (Codec::Opus, "audio-b"));
    assert_eq!(track.id, TrackId::new("0"), "the mid of the audio section");
    let first = guarded("audio", track.packets.recv()).await.unwrap();
    for number in 101..110 {
        let packet = guarded("audio", track.packets.recv()).await.unwrap();
        assert_eq!(packet.payload, format!("audio {number}"));
        assert_eq!(packet.sequence.wrapping_sub(first.sequence), number - 100);
        assert_eq!(u64::from(packet.timestamp), u64::from(number) * 960);
        assert!(!packet.marker);
    }
}

#[tokio::test]
async fn the_receivers_keyframe_request_reaches_the_senders_subscription() {
    let fanout = Fanout::default();
    let mut pair = Pair::connected(VIDEO, VIDEO).await;
    pair.a.connection.send_video(Some(fanout.subscribe(8)));
    keyframe_request(&fanout).await;
    fanout.publish(frame(1, true, 100));
    let mut track = track(&mut pair.b).await;
    next_frame(&mut track.packets).await;
    fanout.take_keyframe_request();
    track.keyframe_request.request();
    keyframe_request(&fanout).await;
    track.keyframe_request.request();
    keyframe_request(&fanout).await;
}

#[tokio::test]
async fn sequence_numbers_continue_when_the_source_is_replaced() {
    let (first, second) = (Fanout::default(), Fanout::default());
    let mut pair = Pair::connected(VIDEO, VIDEO).await;
    pair.a.connection.send_video(Some(first.subscribe(8)));
    first.publish(frame(1, true, 3000));
    let mut track = track(&mut pair.b).await;
    let before = next_frame(&mut track.packets).await;
    pair.a.connection.send_video(None);
    pair.a.connection.send_video(Some(second.subscribe(8)));
    keyframe_request(&second).await;
    second.publish(frame(2, false, 100));
    second.publish(frame(3, true, 100));
    let after = next_frame(&mut track.packets).await;
    assert_eq!(reassemble(&after), nal_units(&frame(3, true, 100).data));
    let last = before.last().unwrap().sequence;
    assert_eq!(after[0].sequence, last.wrapping_add(1));
}

/// A layer changes at a keyframe of the new one, the old one goes on until then, and the receiver
/// sees one stream: no gap in the sequence, and timestamps that rise.
#[tokio::test]
async fn a_change_of_layer_is_one_stream_for_the_receiver() {
    let (full, half) = (Fanout::default(), Fanout::default());
    let mut pair = Pair::connected(VIDEO, VIDEO).await;
    pair.a.connection.send_video(Some(full.subscribe(8)));
    full.publish(frame(1, true, 3000));
    let mut track = track(&mut pair.b).await;
    let mut packets = next_frame(&mut track.packets).await;
    pair.a.connection.send_video(Some(half.subscribe(8).as_successor()));
    keyframe_request(&half).await;
    half.publish(frame(2, false, 100));
    let last_of_full = frame(3, false, 100);
    let same_picture = frame_at(last_of_full.time, 4, true);
    let expected = nal_units(&last_of_full.data);
    full.publish(last_of_full);
    let third = next_frame(&mut track.packets).await;
    assert_eq!(reassemble(&third), expected, "the old layer goes on until the keyframe");
    packets.extend(third);
    let expected = nal_units(&same_picture.data);
    half.publish(same_picture);
    let fourth = next_frame(&mut track.packets).await;
    assert_eq!(reassemble(&fourth), expected);
    packets.extend(fourth);
    full.publish(frame(5, true, 100));
    half.publish(frame(6, false, 100));
    let sixth = next_frame(&mut track.packets).await;
    assert_eq!(reassemble(&sixth), nal_units(&frame(6, false, 100).data), "the old one has ended");
    packets.extend(sixth);
    assert_eq!(full.subscribers(), 0);
    for pair in packets.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        let rise = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert_eq!(rise == 0, !pair[0].marker, "each frame has a timestamp of its own");
        assert!(rise < 90_000 * 60, "and it is later: {rise}");
    }
}

#[tokio::test]
async fn nothing_is_sent_in_a_direction_that_the_remote_peer_does_not_receive() {
    let fanout = Fanout::default();
    let mut pair = Pair::connected(audio_video(SendRecv), audio_video(SendOnly)).await;
    let audio = Fanout::default();
    pair.a.connection.send_video(Some(fanout.subscribe(8)));
    pair.b.connection.send_audio(Some(audio.subscribe(8)));
    fanout.publish(frame(1, true, 100));
    audio.publish(audio_packet(1));
    // The other direction works. By then the driver would have counted packets of this direction.
    let track = track(&mut pair.a).await;
    assert_eq!(track.codec, Codec::Opus);
    let sent = outbound(&pair.a);
    assert!(sent.is_empty(), "{sent:?}");
    assert!(pair.b.tracks.try_recv().is_err());
}

#[tokio::test]
async fn an_ice_restart_moves_the_media_to_new_sockets() {
    let fanout = Fanout::default();
    let mut pair = Pair::connected(VIDEO, VIDEO).await;
    pair.a.connection.send_video(Some(fanout.subscribe(8)));
    fanout.publish(frame(1, true, 100));
    let mut track = track(&mut pair.b).await;
    next_frame(&mut track.packets).await;
    (pair.a.state, pair.b.state) = (None, None);
    fanout.take_keyframe_request();

    let restart = pair.a.make_offer(true);
    let offer = pair.a.description(restart).await;
    assert!(!offer.contains("a=candidate"), "old sockets are not offered");
    let answer = pair.b.accept_offer(&offer);
    let answer = pair.b.description(answer).await;
    pair.a.accept_answer(&answer);
    pair.until_connected().await;
    keyframe_request(&fanout).await;
    fanout.publish(frame(2, true, 100));
    let moved = next_frame(&mut track.packets).await;
    assert_eq!(reassemble(&moved), nal_units(&frame(2, true, 100).data));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_does_not_slow_down_another_of_the_same_fanout() {
    let fanout = Fanout::default();
    let mut good = Pair::impaired([VIDEO; 2], Impairment::default());
    good.connect().await;
    let mut unread = Pair::impaired([VIDEO; 2], Impairment::default());
    unread.connect().await;
    good.a.connection.send_video(Some(fanout.subscribe(8)));
    unread.a.connection.send_video(Some(fanout.subscribe(8)));
    let mut clock = tokio::time::interval(Duration::from_millis(5));
    let mut seen = None;
    for number in 0..200 {
        clock.tick().await;
        fanout.publish(frame(number, number == 0, 4000));
        let track = match &mut seen {
            Some(track) => track,
            None => seen.insert(track(&mut good.b).await),
        };
        let packets = next_frame(&mut track.packets).await;
        assert_eq!(reassemble(&packets), nal_units(&frame(number, number == 0, 4000).data));
    }
    let mut track = track(&mut unread.b).await;
    assert!(track.packets.len() <= 512, "unread packets are dropped");
    assert!(track.packets.try_recv().is_ok());
}
