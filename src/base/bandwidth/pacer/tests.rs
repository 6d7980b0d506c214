use super::*;
use crate::{bandwidth::FramePart, model::Bitrate};

const RATE: PacingRate = PacingRate { target: Bitrate::from_kbps(1000), pacing: Pacing::Limited };
const START: MediaTime = MediaTime::from_micros(7_000_000);

const fn after(micros: u64) -> MediaTime {
    MediaTime::from_micros(START.as_micros() + micros)
}

fn pacer() -> Pacer<u32> {
    Pacer::new(RATE)
}

/// What leaves in a time: the microseconds after [`START`], and the packet; padding is 0.
fn released(pacer: &mut Pacer<u32>, micros: u64) -> Vec<(u64, u32)> {
    let mut now = START;
    let mut all = vec![];
    while now <= after(micros) {
        while let Some(release) = pacer.poll(now) {
            let item = match release.content {
                Content::Packet(item) => item,
                Content::Padding(_) => 0,
            };
            all.push((release.at.since(START).as_micros() as u64, item));
        }
        let Some(next) = pacer.poll_timeout() else { break };
        assert!(next > now, "it would not sleep");
        now = next;
    }
    all
}

/// Pushes a frame of packets of 1000 bytes, whose items are `first` and those after it.
fn push_frame(pacer: &mut Pacer<u32>, start: FramePart, items: std::ops::Range<u32>) -> Pushed {
    let first = pacer.push(PacketClass::Video(start), 1000, items.start);
    for item in items.skip(1) {
        let rest = pacer.push(PacketClass::Video(FramePart::Continuation), 1000, item);
        assert!(first == Pushed::Queued && rest == first || rest == Pushed::Dropped);
    }
    first
}

#[test]
fn packets_leave_in_the_order_of_their_classes() {
    let mut pacer = pacer();
    let classes = [
        PacketClass::Video(FramePart::FrameStart),
        PacketClass::VideoRetransmission,
        PacketClass::AudioRetransmission,
        PacketClass::Audio,
    ];
    for (class, item) in classes.into_iter().zip(1..) {
        assert_eq!(pacer.push(class, 100, item), Pushed::Queued);
    }
    let order: Vec<_> = released(&mut pacer, 100_000).into_iter().map(|(_, item)| item).collect();
    assert_eq!(order, [4, 3, 2, 1]);
}

#[test]
fn a_frame_leaves_in_quanta_of_three_at_a_multiple_of_the_target() {
    let mut pacer = pacer();
    assert_eq!(push_frame(&mut pacer, FramePart::FrameStart, 1..8), Pushed::Queued);
    // 24000 bits at 1.5 Mbit/s.
    let expected = [(0, 1), (0, 2), (0, 3), (16_000, 4), (16_000, 5), (16_000, 6), (32_000, 7)];
    assert_eq!(released(&mut pacer, 100_000), expected);

    pacer.set_rate(PacingRate { pacing: Pacing::Shallow, ..RATE });
    let _ = push_frame(&mut pacer, FramePart::FrameStart, 1..3);
    let times: Vec<_> = released(&mut pacer, 200_000);
    assert_eq!(times.len(), 2);
    assert_eq!(times[1].0 - times[0].0, 5_333, "one packet at a time");
}

#[test]
fn most_of_the_first_picture_leaves_at_once_and_the_rest_at_the_pace_of_the_start() {
    let mut pacer = pacer();
    pacer.set_rate(PacingRate { pacing: Pacing::Starting, ..RATE });
    let _ = push_frame(&mut pacer, FramePart::KeyframeStart, 1..15);
    // 8000 bits at 2.5 Mbit/s, then 24000.
    let expected = [[0; 10].as_slice(), &[3_200; 3], &[12_800]].concat();
    let times: Vec<_> = released(&mut pacer, 50_000).into_iter().map(|(at, _)| at).collect();
    assert_eq!(times, expected);
    let _ = push_frame(&mut pacer, FramePart::KeyframeStart, 20..34);
    let quanta = released(&mut pacer, 50_000).into_iter().filter(|(at, _)| *at < 9_000).count();
    assert!(quanta <= 3, "there is one window: {quanta}");
}

#[test]
fn a_path_with_room_takes_six_packets_at_a_time_but_not_of_a_keyframe() {
    let mut pacer = pacer();
    pacer.set_rate(PacingRate { pacing: Pacing::Ample, ..RATE });
    let _ = push_frame(&mut pacer, FramePart::FrameStart, 1..11);
    // 48000 bits at 5 Mbit/s.
    let times: Vec<_> = released(&mut pacer, 50_000).into_iter().map(|(at, _)| at).collect();
    assert_eq!(times, [[0; 6].as_slice(), &[9_600; 4]].concat());
    let mut pacer = Pacer::new(PacingRate { pacing: Pacing::Ample, ..RATE });
    let _ = push_frame(&mut pacer, FramePart::KeyframeStart, 1..5);
    // 24000 bits at 2.5 Mbit/s.
    let times: Vec<_> = released(&mut pacer, 50_000).into_iter().map(|(at, _)| at).collect();
    assert_eq!(times, [[0; 3].as_slice(), &[9_600]].concat());
    let mut pacer = Pacer::new(PacingRate { pacing: Pacing::Free, ..RATE });
    let _ = push_frame(&mut pacer, FramePart::KeyframeStart, 1..7);
    assert!(released(&mut pacer, 50_000).into_iter().all(|(at, _)| at == 0));
}

#[test]
fn neither_a_keyframe_nor_what_waited_behind_it_leaves_in_a_burst() {
    // 24000 bits at 2.5 Mbit/s, and at 1.5.
    let cases =
        [(Pacing::Ample, [9_600, 19_200, 28_800]), (Pacing::Limited, [16_000, 32_000, 48_000])];
    for (pacing, [second, third, fourth]) in cases {
        let mut pacer = Pacer::new(PacingRate { pacing, ..RATE });
        let _ = push_frame(&mut pacer, FramePart::KeyframeStart, 1..7);
        let _ = push_frame(&mut pacer, FramePart::FrameStart, 7..10);
        let _ = push_frame(&mut pacer, FramePart::FrameStart, 10..13);
        let times: Vec<_> = released(&mut pacer, 60_000).into_iter().map(|(at, _)| at).collect();
        assert_eq!(times, [[0; 3], [second; 3], [third; 3], [fourth; 3]].concat(), "{pacing:?}");
    }
}

#[test]
fn audio_never_waits_for_video() {
    let mut pacer = pacer();
    let _ = push_frame(&mut pacer, FramePart::KeyframeStart, 1..50);
    for _ in 0..3 {
        assert!(pacer.poll(START).is_some());
    }
    assert!(pacer.poll(START).is_none());
    let now = after(2_500);
    assert_eq!(pacer.push(PacketClass::Audio, 164, 99), Pushed::Queued);
    assert!(pacer.poll_timeout().is_some_and(|at| at <= now));
    let release = pacer.poll(now).expect("audio leaves");
    assert!(matches!(release.content, Content::Packet(99)) && release.at == now);
    assert!(pacer.poll(now).is_none(), "and takes no video with it");
}

#[test]
fn packets_that_are_pushed_one_by_one_make_a_quantum() {
    let mut pacer = pacer();
    let mut stamps = vec![];
    for item in 0..4 {
        let part = if item == 0 { FramePart::FrameStart } else { FramePart::Continuation };
        assert_eq!(pacer.push(PacketClass::Video(part), 1000, item), Pushed::Queued);
        stamps.extend(pacer.poll(after(u64::from(item) * 100)).map(|release| release.at));
    }
    assert_eq!(stamps, [START; 3], "the fourth waits");
}

#[test]
fn too_much_video_is_dropped_as_whole_frames_up_to_the_next_keyframe() {
    let mut pacer = pacer();
    // 350 ms at the target are 43 packets.
    let mut item = 1;
    let mut frames = std::iter::repeat_with(|| {
        item += 5;
        push_frame(&mut pacer, FramePart::FrameStart, item - 5..item)
    });
    assert!(frames.by_ref().take(9).all(|pushed| pushed == Pushed::Queued));
    assert_eq!(frames.next(), Some(Pushed::NeedsKeyframe));
    assert_eq!(frames.next(), Some(Pushed::Dropped), "it is asked for once");
    assert_eq!(pacer.queued_video(), Duration::ZERO);
    assert_eq!(push_frame(&mut pacer, FramePart::KeyframeStart, 500..502), Pushed::Queued);
    assert_eq!(push_frame(&mut pacer, FramePart::FrameStart, 502..503), Pushed::Queued);
    let items: Vec<_> = released(&mut pacer, 100_000).into_iter().map(|(_, item)| item).collect();
    assert_eq!(items, [500, 501, 502]);
}

#[test]
fn a_frame_that_has_begun_to_leave_is_finished() {
    let mut pacer = pacer();
    let _ = push_frame(&mut pacer, FramePart::FrameStart, 1..6);
    assert!(pacer.poll(START).is_some());
    let _ = push_frame(&mut pacer, FramePart::FrameStart, 100..145);
    assert_eq!(push_frame(&mut pacer, FramePart::FrameStart, 200..201), Pushed::NeedsKeyframe);
    let items: Vec<_> = released(&mut pacer, 400_000).into_iter().map(|(_, item)| item).collect();
    assert_eq!(items, [2, 3, 4, 5]);
}

#[test]
fn a_large_keyframe_is_kept_and_a_newer_one_replaces_what_waits_before_it() {
    let mut pacer = pacer();
    // A second of the target: it alone is no reason to drop anything.
    assert_eq!(push_frame(&mut pacer, FramePart::KeyframeStart, 1..125), Pushed::Queued);
    assert_eq!(push_frame(&mut pacer, FramePart::FrameStart, 200..245), Pushed::Queued);
    assert_eq!(push_frame(&mut pacer, FramePart::FrameStart, 300..301), Pushed::NeedsKeyframe);
    assert_eq!(push_frame(&mut pacer, FramePart::KeyframeStart, 400..402), Pushed::Queued);
    assert_eq!(pacer.poll(START).map(|_| ()), Some(()));
    // Deltas after the new keyframe fill the queue again: the begun keyframe and the new one stay.
    assert_eq!(push_frame(&mut pacer, FramePart::FrameStart, 500..545), Pushed::Queued);
    assert_eq!(push_frame(&mut pacer, FramePart::FrameStart, 600..601), Pushed::NeedsKeyframe);
    let items: Vec<_> = released(&mut pacer, 900_000).into_iter().map(|(_, item)| item).collect();
    assert_eq!(items, (2..125).chain(400..402).collect::<Vec<_>>());
}

#[test]
fn a_keyframe_that_waits_takes_the_place_of_the_frames_before_it() {
    let mut pacer = pacer();
    let _ = push_frame(&mut pacer, FramePart::FrameStart, 1..45);
    let _ = push_frame(&mut pacer, FramePart::KeyframeStart, 100..103);
    assert_eq!(push_frame(&mut pacer, FramePart::FrameStart, 200..202), Pushed::Queued);
    let items: Vec<_> = released(&mut pacer, 900_000).into_iter().map(|(_, item)| item).collect();
    assert_eq!(items, [100, 101, 102, 200, 201]);
}

#[test]
fn a_probe_takes_what_waits_and_asks_for_padding() {
    let mut pacer = pacer();
    let _ = push_frame(&mut pacer, FramePart::FrameStart, 1..3);
    let rate = Bitrate::from_kbps(4000);
    pacer.push_probe(ProbeCluster { id: ClusterId(7), rate, bytes: 7500, packets: 5 });
    // 1000 bytes at 4 Mbit/s take 2 ms, the padding of 1264 bytes 2.528 ms.
    let expected =
        [(0, 1), (2_000, 2), (4_000, 0), (6_528, 0), (9_056, 0), (11_584, 0), (14_112, 0)];
    let all = released(&mut pacer, 100_000);
    assert_eq!(all, expected);
    assert_eq!(pacer.poll_timeout(), None, "it has ended");
}

#[test]
fn padding_of_another_size_counts_as_what_it_is() {
    let mut pacer = pacer();
    let rate = Bitrate::from_kbps(4000);
    pacer.push_probe(ProbeCluster { id: ClusterId(7), rate, bytes: 3000, packets: 5 });
    let (mut now, mut times) = (START, vec![]);
    while let Some(next) = pacer.poll_timeout() {
        now = now.max(next);
        if let Some(release) = pacer.poll(now) {
            assert_eq!(release.cluster, Some(ClusterId(7)));
            times.push(release.at.since(START).as_micros());
            pacer.on_padding_sent(300);
        }
    }
    assert_eq!(times, (0..10).map(|index| index * 600).collect::<Vec<_>>());
}

/// Five packets of full size are 340 ms of queue at 150 kbit/s.
#[test]
fn a_slow_probe_has_small_packets() {
    for (rate, bytes, padding) in [(300, 562, 264), (4000, 7500, 1264), (2000, 3750, 750)] {
        let mut pacer = pacer();
        let rate = Bitrate::from_kbps(rate);
        pacer.push_probe(ProbeCluster { id: ClusterId(1), rate, bytes, packets: 5 });
        let release = pacer.poll(START).expect("padding");
        assert!(matches!(release.content, Content::Padding(size) if size == padding));
    }
}

#[test]
fn queues_have_a_limit() {
    let mut pacer = pacer();
    let push = |pacer: &mut Pacer<u32>| pacer.push(PacketClass::VideoRetransmission, 1000, 1);
    assert!((0..MAX_QUEUED_PACKETS).all(|_| push(&mut pacer) == Pushed::Queued));
    assert_eq!(push(&mut pacer), Pushed::Dropped);
}
