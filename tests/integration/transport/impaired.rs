//! Connections over bad networks.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quintet::{
    media::{Fanout, RtpPacket},
    model::{Direction::SendRecv, PeerMedia, PeerState, PerChannel, PerSource},
    transport::Impairment,
};

use super::{
    frames::{frame, keyframe_request, nal_units, next_frame, reassemble},
    pair::{Endpoint, Pair, guarded},
    stats::{check_stats, outbound},
};

const VIDEO: PeerMedia = PeerMedia {
    sections: PerSource { camera: Some(SendRecv), microphone: None },
    channels: PerChannel::NONE,
};

#[tokio::test(start_paused = true)]
async fn a_connection_over_a_network_that_fails_and_returns_is_connected_again() {
    let fanout = Fanout::default();
    let network = Impairment::default();
    let mut pair = Pair::impaired([VIDEO; 2], network);
    pair.connect().await;
    pair.a.connection.impair(Impairment { down: true, ..network });
    pair.b.connection.impair(Impairment { down: true, ..network });
    let disconnected = |end: &Endpoint| end.state == Some(PeerState::Disconnected);
    pair.until("both to be disconnected", |a, b| disconnected(a) && disconnected(b)).await;
    pair.a.connection.impair(network);
    pair.b.connection.impair(network);
    pair.until_connected().await;

    pair.a.connection.send_video(Some(fanout.subscribe(8)));
    keyframe_request(&fanout).await;
    fanout.publish(frame(1, true, 3000));
    let mut track = guarded("a track", pair.b.tracks.recv()).await.unwrap();
    let packets = next_frame(&mut track.packets).await;
    assert_eq!(reassemble(&packets), nal_units(&frame(1, true, 3000).data));
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_a_network_does_not_slow_down_another_of_the_same_fanout() {
    let fanout = Fanout::default();
    let network = Impairment::default();
    let mut good = Pair::connected(VIDEO, VIDEO).await;
    let mut lost = Pair::impaired([VIDEO; 2], network);
    lost.connect().await;
    good.a.connection.send_video(Some(fanout.subscribe(8)));
    lost.a.connection.send_video(Some(fanout.subscribe(8)));
    lost.a.connection.impair(Impairment { down: true, ..network });
    fanout.publish(frame(0, true, 4000));
    let mut track = guarded("a track", good.b.tracks.recv()).await.unwrap();
    for number in 0..100 {
        let packets = next_frame(&mut track.packets).await;
        assert_eq!(reassemble(&packets), nal_units(&frame(number, number == 0, 4000).data));
        fanout.publish(frame(number + 1, false, 4000));
    }
    assert!(lost.b.tracks.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_a_long_delay_is_reached() {
    let far = Impairment { delay: Duration::from_millis(150), ..Impairment::default() };
    Pair::impaired([VIDEO; 2], far).connect().await;
}

#[tokio::test(start_paused = true)]
async fn all_peers_connect_over_networks_that_lose_a_fifth() {
    let delay = Duration::from_millis(50);
    let pairs: Vec<_> = (0..24)
        .map(|number| {
            let seed = number * 2;
            let bad = Impairment { seed, loss: 0.2, delay, ..Impairment::default() };
            tokio::spawn(async move { Pair::impaired([VIDEO; 2], bad).connect().await })
        })
        .collect();
    for (number, pair) in pairs.into_iter().enumerate() {
        assert!(pair.await.is_ok(), "seed {} did not connect", number * 2);
    }
}

/// A packet with a flipped bit fails authentication (RFC 3711, section 3.3). It is retransmitted
/// like a lost one, and the received frames equal the sent ones.
#[tokio::test(start_paused = true)]
async fn with_flipped_bits_video_continues_and_no_frame_is_wrong() {
    const FRAMES: u32 = 100;
    let fanout = Fanout::default();
    let network = Impairment { seed: 5, ..Impairment::default() };
    let mut pair = Pair::impaired([VIDEO; 2], network);
    pair.connect().await;
    // Ten times as many as on the worst networks, so that packets of each kind are hit many times.
    let corrupting = Impairment { flip: 0.1, ..network };
    pair.a.connection.impair(corrupting);
    pair.b.connection.impair(corrupting);
    pair.a.connection.send_video(Some(fanout.subscribe(8)));
    keyframe_request(&fanout).await;
    let publisher = {
        let fanout = fanout.clone();
        tokio::spawn(async move {
            let mut clock = tokio::time::interval(Duration::from_millis(20));
            for number in 0..FRAMES {
                clock.tick().await;
                fanout.publish(frame(number, number == 0, 4000));
            }
        })
    };
    let mut track = guarded("a track", pair.b.tracks.recv()).await.unwrap();
    let mut frames: BTreeMap<u32, BTreeMap<u16, RtpPacket>> = BTreeMap::new();
    let silence = Duration::from_millis(1000);
    while let Ok(Some(packet)) = tokio::time::timeout(silence, track.packets.recv()).await {
        frames.entry(packet.timestamp).or_default().insert(packet.sequence, packet);
    }
    publisher.await.unwrap();
    let sent: Vec<_> =
        (0..FRAMES).map(|number| nal_units(&frame(number, number == 0, 4000).data)).collect();
    let complete: Vec<_> = frames.into_values().filter_map(complete).collect();
    println!("{} of {FRAMES} frames arrived", complete.len());
    assert!(complete.iter().all(|packets| sent.contains(&reassemble(packets))), "a wrong frame");
    let retransmitted = outbound(&pair.a)[0].retransmitted_packets_sent;
    assert!(retransmitted > 0, "nothing was corrupted");
    assert!(complete.len() as f64 > f64::from(FRAMES) * 0.9, "{} frames", complete.len());

    pair.a.connection.impair(network);
    pair.b.connection.impair(network);
    fanout.publish(frame(FRAMES, true, 4000));
    let packets = next_frame(&mut track.packets).await;
    assert_eq!(reassemble(&packets), nal_units(&frame(FRAMES, true, 4000).data));
}

/// The packets of one frame in order, if none is missing.
fn complete(packets: BTreeMap<u16, RtpPacket>) -> Option<Vec<RtpPacket>> {
    let last = packets.values().find(|packet| packet.marker)?.sequence;
    let mut packets: Vec<_> = packets.into_values().collect();
    packets.sort_by_key(|packet| std::cmp::Reverse(last.wrapping_sub(packet.sequence)));
    let first = packets.first()?;
    let begins = first.payload[0] & 0x1f != 28 || first.payload[1] & 0x80 != 0;
    let has_all = usize::from(last.wrapping_sub(first.sequence)) + 1 == packets.len();
    (begins && has_all).then_some(packets)
}

/// In each direction, 10 % of all datagrams are lost and the delay is 50 ms. 40 packets are sent per
/// second, which is less than an estimator begins with.
#[tokio::test(start_paused = true)]
async fn lost_packets_are_retransmitted_a_limited_number_of_times() {
    const FRAMES: u32 = 150;
    let seed = 11;
    let bad =
        Impairment { seed, loss: 0.1, delay: Duration::from_millis(50), ..Impairment::default() };
    let fanout = Fanout::default();
    let mut pair = Pair::impaired([VIDEO; 2], bad);
    pair.connect().await;
    pair.a.connection.send_video(Some(fanout.subscribe(8)));
    keyframe_request(&fanout).await;
    let publisher = tokio::spawn(async move {
        let mut clock = tokio::time::interval(Duration::from_millis(100));
        for number in 0..FRAMES {
            clock.tick().await;
            fanout.publish(frame(number, number == 0, 4000));
        }
    });
    let mut track = guarded("a track", pair.b.tracks.recv()).await.unwrap();
    let mut arrived = BTreeSet::new();
    let silence = Duration::from_millis(1000);
    while let Ok(Some(packet)) = tokio::time::timeout(silence, track.packets.recv()).await {
        arrived.insert(packet.sequence);
    }
    publisher.await.unwrap();
    let sent = outbound(&pair.a).remove(0);
    println!("seed {seed}: {} different packets arrived of {sent:?}", arrived.len());
    let retransmitted = sent.retransmitted_packets_sent;
    let first = sent.packets_sent - retransmitted;
    assert!(first >= u64::from(FRAMES) * 4, "too few packets were sent");
    assert!(arrived.len() as f64 > first as f64 * 0.98);
    assert!((retransmitted as f64) < first as f64 * 0.3);
    check_stats(&pair, arrived.len() as u64);
}
