//! Bad networks.

use std::{collections::BTreeSet, time::Duration};

use quintet::{
    media::Fanout,
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
