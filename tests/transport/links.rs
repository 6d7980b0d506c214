//! Bad networks.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quintet::{
    media::{Fanout, RtpPacket},
    model::{Direction::SendRecv, PeerMedia, PeerState},
    transport::Impairment,
};

use crate::{
    frames::{frame, keyframe_request, nal_units, next_frame, reassemble},
    pair::{End, Pair, guarded},
};

const VIDEO: PeerMedia = PeerMedia { audio: None, video: Some(SendRecv), data: false };

#[tokio::test]
async fn a_link_that_fails_and_returns_is_disconnected_and_connected_again() {
    let fanout = Fanout::default();
    let link = Impairment::default();
    let mut pair = Pair::impaired([VIDEO; 2], link);
    pair.connect().await;
    pair.a.connection.impair(Impairment { down: true, ..link });
    pair.b.connection.impair(Impairment { down: true, ..link });
    let disconnected = |end: &End| end.state == Some(PeerState::Disconnected);
    pair.until("a lost link", |a, b| disconnected(a) && disconnected(b)).await;
    pair.a.connection.impair(link);
    pair.b.connection.impair(link);
    pair.until_connected().await;

    pair.a.connection.send_video(Some(fanout.subscribe(8)));
    keyframe_request(&fanout).await;
    fanout.publish(frame(1, true, 3000));
    let mut track = guarded("a track", pair.b.tracks.recv()).await.unwrap();
    let packets = next_frame(&mut track.packets).await;
    assert_eq!(reassemble(&packets), nal_units(&frame(1, true, 3000).data));
}

#[tokio::test]
async fn a_peer_whose_link_is_down_does_not_slow_another_of_the_same_fanout() {
    let fanout = Fanout::default();
    let link = Impairment::default();
    let mut good = Pair::connected(VIDEO, VIDEO).await;
    let mut lost = Pair::impaired([VIDEO; 2], link);
    lost.connect().await;
    good.a.connection.send_video(Some(fanout.subscribe(8)));
    lost.a.connection.send_video(Some(fanout.subscribe(8)));
    lost.a.connection.impair(Impairment { down: true, ..link });
    fanout.publish(frame(0, true, 4000));
    let mut track = guarded("a track", good.b.tracks.recv()).await.unwrap();
    for number in 0..100 {
        let packets = next_frame(&mut track.packets).await;
        assert_eq!(reassemble(&packets), nal_units(&frame(number, number == 0, 4000).data));
        fanout.publish(frame(number + 1, false, 4000));
    }
    assert!(lost.b.tracks.try_recv().is_err());
}

#[tokio::test]
async fn a_far_peer_is_reached() {
    let far = Impairment { delay: Duration::from_millis(150), ..Impairment::default() };
    Pair::impaired([VIDEO; 2], far).connect().await;
}

#[tokio::test]
async fn everybody_connects_over_links_that_lose_a_fifth() {
    let delay = Duration::from_millis(50);
    let joiners: Vec<_> = (0..24)
        .map(|number| {
            let seed = number * 2;
            let bad = Impairment { seed, loss: 0.2, delay, ..Impairment::default() };
            tokio::spawn(async move { Pair::impaired([VIDEO; 2], bad).connect().await })
        })
        .collect();
    for (number, joiner) in joiners.into_iter().enumerate() {
        assert!(joiner.await.is_ok(), "seed {} did not connect", number * 2);
    }
}

/// A packet with a flipped bit is no packet of the sender (RFC 3711, section 3.3): it is repeated
/// like a lost one, and what arrives is what was sent.
#[tokio::test]
async fn where_bits_are_flipped_pictures_go_on_and_none_is_wrong() {
    const FRAMES: u32 = 100;
    let fanout = Fanout::default();
    let link = Impairment { seed: 5, ..Impairment::default() };
    let mut pair = Pair::impaired([VIDEO; 2], link);
    pair.connect().await;
    // Ten times what the worst of networks does: every kind of packet is hit many times.
    let spoils = Impairment { flip: 0.1, ..link };
    pair.a.connection.impair(spoils);
    pair.b.connection.impair(spoils);
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
    let mut pictures: BTreeMap<u32, BTreeMap<u16, RtpPacket>> = BTreeMap::new();
    let silence = Duration::from_millis(1000);
    while let Ok(Some(packet)) = tokio::time::timeout(silence, track.packets.recv()).await {
        pictures.entry(packet.timestamp).or_default().insert(packet.sequence, packet);
    }
    publisher.await.unwrap();
    let sent: Vec<_> =
        (0..FRAMES).map(|number| nal_units(&frame(number, number == 0, 4000).data)).collect();
    let whole: Vec<_> = pictures.into_values().filter_map(whole).collect();
    println!("{} of {FRAMES} pictures arrived", whole.len());
    assert!(whole.iter().all(|packets| sent.contains(&reassemble(packets))), "a wrong picture");
    assert!(pair.a.connection.traffic().repeated > 0, "nothing was spoilt");
    assert!(whole.len() as f64 > f64::from(FRAMES) * 0.9, "{} pictures", whole.len());

    pair.a.connection.impair(link);
    pair.b.connection.impair(link);
    fanout.publish(frame(FRAMES, true, 4000));
    let packets = next_frame(&mut track.packets).await;
    assert_eq!(reassemble(&packets), nal_units(&frame(FRAMES, true, 4000).data));
}

/// The packets of one picture in order, if none is missing.
fn whole(packets: BTreeMap<u16, RtpPacket>) -> Option<Vec<RtpPacket>> {
    let last = packets.values().find(|packet| packet.marker)?.sequence;
    let mut packets: Vec<_> = packets.into_values().collect();
    packets.sort_by_key(|packet| std::cmp::Reverse(last.wrapping_sub(packet.sequence)));
    let first = packets.first()?;
    let begins = first.payload[0] & 0x1f != 28 || first.payload[1] & 0x80 != 0;
    let has_all = usize::from(last.wrapping_sub(first.sequence)) + 1 == packets.len();
    (begins && has_all).then_some(packets)
}

/// 10 % of all datagrams lost each way, 50 ms each way, 200 packets a second.
#[tokio::test]
async fn lost_packets_are_repeated_and_not_for_ever() {
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
        let mut clock = tokio::time::interval(Duration::from_millis(20));
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
    let traffic = pair.a.connection.traffic();
    println!("seed {seed}: {} different packets arrived of {traffic:?}", arrived.len());
    assert!(traffic.sent >= u64::from(FRAMES) * 4, "all were sent");
    assert!(arrived.len() as f64 > traffic.sent as f64 * 0.98);
    assert!((traffic.repeated as f64) < traffic.sent as f64 * 0.3);
}
