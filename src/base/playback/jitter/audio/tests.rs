use proptest::prelude::*;

use super::*;
use crate::playback::testing::{at, packet};

/// The `n`th packet of 20 ms of a stream that starts shortly before both counters wrap.
fn nth_packet(n: u16, arrival: u64) -> RtpPacket {
    let stamp = (u32::MAX - 1500).wrapping_add(u32::from(n) * 960);
    packet(65_534_u16.wrapping_add(n), stamp, false, vec![n as u8; 3], at(arrival))
}

fn expected_packet(n: u8) -> Pull {
    Pull::Packet(vec![n; 3].into())
}

/// Pulls like `AudioReceiver`.
fn pull(buffer: &mut AudioJitterBuffer) -> Pull {
    let pulled = buffer.pull();
    match &pulled {
        Pull::Packet(_) => buffer.advance(960),
        Pull::Empty => buffer.on_underrun(480),
        Pull::Silence(samples) => buffer.on_underrun(*samples),
        Pull::Fec { .. } | Pull::Conceal(_) => {}
    }
    pulled
}

fn buffer_with(arrived: &[u16]) -> AudioJitterBuffer {
    let mut buffer = AudioJitterBuffer::new();
    arrived.iter().for_each(|n| buffer.push(&nth_packet(*n, 1000 + u64::from(*n) * 20)));
    buffer
}

#[test]
fn reordered_and_duplicate_packets_are_played_once_and_in_order_across_both_wraps() {
    let mut buffer = buffer_with(&[0, 2, 1, 1, 3, 0, 4]);
    let played: Vec<_> = (0..6).map(|_| pull(&mut buffer)).collect();
    assert_eq!(
        played,
        [
            expected_packet(0),
            expected_packet(1),
            expected_packet(2),
            expected_packet(3),
            expected_packet(4),
            Pull::Empty
        ]
    );
    assert_eq!((buffer.received(), buffer.lost()), (5, 0));
}

#[test]
fn fec_recovers_a_lost_packet_and_of_several_only_the_last() {
    let mut buffer = buffer_with(&[0, 2, 5]);
    let fec = |n: u8| Pull::Fec { next: vec![n; 3].into(), samples: 960 };
    let played: Vec<_> = (0..6).map(|_| pull(&mut buffer)).collect();
    assert_eq!(
        played,
        [
            expected_packet(0),
            fec(2),
            expected_packet(2),
            Pull::Conceal(960),
            fec(5),
            expected_packet(5)
        ]
    );
    assert_eq!((buffer.received(), buffer.lost()), (3, 3));
}

#[test]
fn samples_concealed_before_a_loss_is_known_count_towards_it() {
    let mut buffer = buffer_with(&[0]);
    assert_eq!(pull(&mut buffer), expected_packet(0));
    assert_eq!(pull(&mut buffer), Pull::Empty);
    buffer.push(&nth_packet(2, 1045));
    let next = vec![2; 3].into();
    assert_eq!(pull(&mut buffer), Pull::Fec { next, samples: 480 });
    assert_eq!(pull(&mut buffer), expected_packet(2));
    assert_eq!((pull(&mut buffer), pull(&mut buffer)), (Pull::Empty, Pull::Empty));
    buffer.push(&nth_packet(4, 1085));
    assert_eq!(pull(&mut buffer), expected_packet(4), "the whole loss is already concealed");
}

#[test]
fn a_late_packet_is_played_and_raises_the_target_delay_for_some_time() {
    let mut buffer = AudioJitterBuffer::new();
    for n in 0..200 {
        buffer.push(&nth_packet(n, 1000 + u64::from(n) * 20));
        assert_eq!(pull(&mut buffer), expected_packet(n as u8));
    }
    assert_eq!(buffer.target_delay(), AudioJitterBuffer::MIN_TARGET_DELAY);
    assert_eq!(pull(&mut buffer), Pull::Empty);
    buffer.push(&nth_packet(200, 1000 + 200 * 20 + 80));
    assert_eq!(buffer.target_delay(), Duration::from_millis(90), "80 ms and a block");
    assert_eq!(pull(&mut buffer), expected_packet(200));
    (0..100).for_each(|_| buffer.fade_memory());
    let later = buffer.target_delay().as_millis();
    assert!((45..=60).contains(&later), "one second later: {later}");
    (0..250).for_each(|_| buffer.fade_memory());
    assert_eq!(buffer.target_delay(), AudioJitterBuffer::MIN_TARGET_DELAY);
}

#[test]
fn jitter_raises_the_target_delay_within_its_bounds() {
    for (jitter_ms, bounds) in [(0, 20..=20), (60, 60..=75), (1000, 200..=200)] {
        let mut buffer = AudioJitterBuffer::new();
        for n in 0..500_u16 {
            let late = u64::from(n) * 7919 % (jitter_ms + 1);
            buffer.push(&nth_packet(n, 1000 + u64::from(n) * 20 + late));
            buffer.pull();
        }
        let target = buffer.target_delay().as_millis();
        assert!(bounds.contains(&target), "{jitter_ms}: {target}");
    }
}

#[test]
fn playout_starts_when_the_first_packet_was_held_for_the_target_delay() {
    let buffer = buffer_with(&[0]);
    assert!(!buffer.is_ready(at(1019)));
    assert!(buffer.is_ready(at(1020)));
    assert!(!AudioJitterBuffer::new().is_ready(at(9999)));
}

#[test]
fn after_a_stalled_network_old_audio_is_skipped() {
    let mut buffer = AudioJitterBuffer::new();
    buffer.push(&nth_packet(0, 1000));
    assert_eq!(pull(&mut buffer), expected_packet(0));
    // The network delivers nothing for a second, then all packets at once.
    (1..=50).for_each(|n| buffer.push(&nth_packet(n, 2000)));
    buffer.catch_up(at(2000));
    let Pull::Packet(next) = pull(&mut buffer) else { panic!("no packet") };
    assert!((15..=35).contains(&next[0]), "{}", next[0]);
    assert_eq!(buffer.lost(), 0);
}

#[test]
fn a_full_buffer_drops_the_oldest_packets() {
    let mut buffer = AudioJitterBuffer::new();
    (0..300).for_each(|n| buffer.push(&nth_packet(n, 1000 + u64::from(n) * 20)));
    assert_eq!(buffer.held.len(), AudioJitterBuffer::MAX_PACKETS);
    assert_eq!(pull(&mut buffer), expected_packet((300 - AudioJitterBuffer::MAX_PACKETS) as u8));
}

#[test]
fn a_jump_of_the_timestamps_is_followed_without_concealment() {
    let mut buffer = buffer_with(&[0]);
    assert_eq!(pull(&mut buffer), expected_packet(0));
    buffer.push(&packet(0, 5_000_000, false, vec![9], at(1020)));
    buffer.push(&packet(2, 6_000_000, false, vec![8], at(1060)));
    assert_eq!(pull(&mut buffer), Pull::Packet(vec![9].into()));
    assert_eq!(pull(&mut buffer), Pull::Packet(vec![8].into()));
}

/// The `n`th packet with copies of those at these distances before it.
fn with_copies(n: u16, distances: &[u16]) -> RtpPacket {
    let copy = |distance: &u16| RedundantPayload {
        offset: u32::from(*distance) * 960,
        payload: vec![(n - distance) as u8; 3].into(),
    };
    let copies = distances.iter().map(copy).collect();
    RtpPacket { copies, ..nth_packet(n, 1000 + u64::from(n) * 20) }
}

/// A buffer that has played packet 0.
fn playing_buffer() -> AudioJitterBuffer {
    let mut buffer = buffer_with(&[0]);
    buffer.start();
    assert_eq!(pull(&mut buffer), expected_packet(0));
    buffer
}

#[test]
fn a_copy_replaces_a_lost_packet_and_its_fec_the_one_before() {
    let mut buffer = playing_buffer();
    // Packets 1, 2 and 3 are lost. Packet 4 has a copy of packet 2.
    buffer.push(&with_copies(4, &[4, 2]));
    let fec = |n: u8| Pull::Fec { next: vec![n; 3].into(), samples: 960 };
    let played: Vec<_> = (0..5).map(|_| pull(&mut buffer)).collect();
    assert_eq!(
        played,
        [fec(2), expected_packet(2), fec(4), expected_packet(4), Pull::Empty],
        "the copy's FEC comes before the copy"
    );
    assert_eq!((buffer.received(), buffer.lost()), (2, 3), "they did not arrive");
}

#[test]
fn a_copy_replaces_no_packet_that_is_there_or_was_played() {
    let mut buffer = playing_buffer();
    buffer.push(&nth_packet(1, 1020));
    let mut other = with_copies(3, &[3, 2]);
    other.copies.iter_mut().for_each(|copy| copy.payload = vec![9].into());
    buffer.push(&other);
    assert_eq!(buffer.held.len(), 2, "packets 1 and 3");
    assert_eq!(pull(&mut buffer), expected_packet(1));
    // Packet 2 arrives after its copy.
    buffer.push(&with_copies(4, &[2]));
    buffer.push(&nth_packet(2, 1085));
    assert_eq!(pull(&mut buffer), expected_packet(2));
    assert_eq!((buffer.received(), buffer.lost()), (5, 0));
}

#[test]
fn copies_that_fit_nowhere_are_left_out() {
    let mut buffer = playing_buffer();
    let mut odd = with_copies(5, &[2]);
    odd.copies[0].offset += 1;
    buffer.push(&odd);
    assert_eq!(buffer.held.len(), 1, "it is between two packets");
    let mut buffer = AudioJitterBuffer::new();
    buffer.push(&with_copies(5, &[4, 2]));
    assert_eq!(buffer.held.len(), 1, "playout begins with a packet");
}

#[test]
fn a_copy_that_was_needed_raises_the_target_delay() {
    let mut buffer = playing_buffer();
    (1..100).for_each(|n| {
        buffer.push(&nth_packet(n, 1000 + u64::from(n) * 20));
        assert_eq!(pull(&mut buffer), expected_packet(n as u8));
    });
    buffer.push(&with_copies(103, &[2]));
    let target = buffer.target_delay().as_millis();
    assert!((50..=52).contains(&target), "two packets and a block: {target}");
}

#[test]
fn a_copy_that_comes_after_its_packet_was_made_up_raises_the_target_delay() {
    let mut buffer = playing_buffer();
    buffer.push(&nth_packet(2, 1040));
    let next = vec![2; 3].into();
    assert_eq!(pull(&mut buffer), Pull::Fec { next, samples: 960 });
    buffer.on_made_up();
    assert_eq!(pull(&mut buffer), expected_packet(2));
    assert_eq!(buffer.target_delay(), AudioJitterBuffer::MIN_TARGET_DELAY);
    buffer.push(&with_copies(3, &[2]));
    let target = buffer.target_delay().as_millis();
    assert!((50..=52).contains(&target), "two packets and a block: {target}");
    assert_eq!(buffer.held.len(), 1);
}

#[test]
fn what_comes_too_late_to_repair_a_loss_raises_the_target_delay_and_what_repairs_none_does_not() {
    // Packets 1 to 3 are lost. Packet 2, of which packet 4 has a copy, has FEC of packet 1.
    for (distances, at_least, at_most) in [(&[4, 2][..], 70, 72), (&[1], 30, 32), (&[], 20, 20)] {
        let mut buffer = playing_buffer();
        assert_eq!(pull(&mut buffer), Pull::Empty);
        buffer.on_underrun(480);
        buffer.push(&with_copies(4, distances));
        let target = buffer.target_delay().as_millis();
        assert!((at_least..=at_most).contains(&target), "{distances:?}: {target}");
    }
}

#[test]
fn the_maximum_rises_only_where_packets_need_it_for_seconds() {
    let mut buffer = AudioJitterBuffer::new();
    let mut run = |packets: std::ops::Range<u16>, late: u64| {
        for n in packets {
            let late = u64::from(n % 2) * late;
            buffer.push(&nth_packet(n, 1000 + u64::from(n) * 20 + late));
            buffer.pull();
            (0..2).for_each(|_| buffer.fade_memory());
        }
        buffer.target_delay().as_millis()
    };
    assert_eq!(run(0..200, 330), 200, "after four seconds");
    assert!((330..=345).contains(&run(200..400, 330)), "after eight");
    assert!(run(400..2600, 0) <= 40, "and back");
}

#[test]
fn a_floor_is_kept_within_its_bound() {
    let mut buffer = AudioJitterBuffer::new();
    buffer.set_floor(Duration::from_millis(80));
    assert_eq!(buffer.target_delay().as_millis(), 80);
    buffer.set_floor(Duration::from_secs(9));
    assert_eq!(buffer.target_delay(), AudioJitterBuffer::MAX_FLOOR);
}

/// A padding packet between the `n`th packet and the next, with the timestamp of the `n`th.
fn padding_after(n: u16, sequence: u16, arrival: u64) -> RtpPacket {
    RtpPacket { sequence, payload: Bytes::new(), ..nth_packet(n, arrival) }
}

#[test]
fn padding_counts_as_received_and_is_neither_audio_nor_a_loss() {
    let sent =
        |n: u16, stamp: u32, arrival| packet(n, stamp * 960, false, vec![n as u8; 3], at(arrival));
    let padding = |n: u16, arrival| packet(n, 960, false, vec![], at(arrival));
    let mut buffer = AudioJitterBuffer::new();
    buffer.push(&padding(0, 1000));
    buffer.push(&sent(1, 1, 1000));
    // The sender pauses and only sends probes: sequence numbers and time go on.
    [4, 2, 3].into_iter().for_each(|n| buffer.push(&padding(n, 1500)));
    buffer.push(&sent(5, 30, 1580));
    assert_eq!(pull(&mut buffer), expected_packet(1));
    assert_eq!(pull(&mut buffer), expected_packet(5), "nothing is concealed");
    assert_eq!(
        buffer.target_delay(),
        AudioJitterBuffer::MIN_TARGET_DELAY,
        "padding does not affect the delay"
    );
    assert_eq!((buffer.received(), buffer.lost()), (6, 0));
    assert!(buffer.padding.is_empty());
    // Packet 7 is lost.
    buffer.push(&padding(6, 1600));
    buffer.push(&sent(8, 32, 1620));
    let next = vec![8; 3].into();
    assert_eq!(pull(&mut buffer), Pull::Fec { next, samples: 960 });
    assert_eq!((buffer.received(), buffer.lost()), (8, 1));
}

#[test]
fn padding_alone_does_not_start_playout_and_is_kept_within_a_bound() {
    let mut buffer = AudioJitterBuffer::new();
    (0..1000).for_each(|n| buffer.push(&padding_after(0, n, 1000)));
    assert!(buffer.is_empty() && !buffer.is_ready(at(9000)));
    assert_eq!((pull(&mut buffer), buffer.received()), (Pull::Empty, 1000));
    assert!(buffer.padding.len() <= AudioJitterBuffer::MAX_PACKETS);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_packets_exceed_the_bounds_or_cause_endless_concealment(
        packets in prop::collection::vec(
            (any::<u16>(), any::<u32>(), 0..20_000_usize, 0..40_u64), 1..600),
        near in any::<bool>(),
    ) {
        let mut buffer = AudioJitterBuffer::new();
        let mut now = 1000;
        for (n, (sequence, stamp, bytes, pause)) in packets.into_iter().enumerate() {
            now += pause;
            let (sequence, stamp) = match near {
                true => (sequence % 40 + n as u16, (n as u32 * 960).wrapping_add(stamp % 2000)),
                false => (sequence, stamp),
            };
            buffer.push(&packet(sequence, stamp, false, vec![0; bytes], at(now)));
            prop_assert!(buffer.held.len() <= AudioJitterBuffer::MAX_PACKETS);
            prop_assert!(buffer.held.values().all(
                |held| held.payload.len() <= AudioJitterBuffer::MAX_PACKET_BYTES));
            prop_assert!((AudioJitterBuffer::MIN_TARGET_DELAY..=AudioJitterBuffer::LONG_MAX_TARGET_DELAY)
                .contains(&buffer.target_delay()));
            buffer.is_ready(at(now));
            buffer.catch_up(at(now));
            buffer.excess_delay(at(now), 480);
            if n % 3 == 0 {
                let pulled = pull(&mut buffer);
                let fits = match pulled {
                    Pull::Fec { samples, .. } | Pull::Conceal(samples) => {
                        (1..=960).contains(&samples)
                    }
                    Pull::Packet(_) | Pull::Silence(_) | Pull::Empty => true,
                };
                prop_assert!(fits);
            }
        }
        let per_packet = 1 + AudioJitterBuffer::MAX_GAP as usize / 960 + 1;
        let max_pulls = 2 + AudioJitterBuffer::MAX_PACKETS * per_packet;
        let mut pulls = 0;
        while pull(&mut buffer) != Pull::Empty {
            pulls += 1;
            prop_assert!(pulls <= max_pulls);
        }
    }
}

#[test]
fn of_a_lost_packet_of_40_ms_all_may_be_had_from_the_next() {
    let mut buffer = AudioJitterBuffer::new();
    for n in [0_u16, 1, 3] {
        let arrival = at(1000 + u64::from(n) * 40);
        buffer.push(&packet(n, u32::from(n) * 1920, false, vec![n as u8; 3], arrival));
    }
    for n in 0..2 {
        assert_eq!(buffer.pull(), expected_packet(n));
        buffer.advance(1920);
    }
    assert_eq!(buffer.pull(), Pull::Fec { next: vec![3; 3].into(), samples: 1920 });
}

#[test]
fn a_silence_that_is_not_sent_is_neither_missing_nor_late() {
    let mut buffer = AudioJitterBuffer::new();
    let push = |buffer: &mut AudioJitterBuffer, n: u16, at_ms: u64, bytes: usize| {
        let stamp = u32::from(n) * 960 + if n > 1 { 9 * 960 } else { 0 };
        buffer.push(&packet(n, stamp, false, vec![n as u8; bytes], at(at_ms)));
    };
    push(&mut buffer, 0, 1000, 30);
    // An empty packet tells that silence follows.
    push(&mut buffer, 1, 1020, 1);
    assert_eq!(
        [pull(&mut buffer), pull(&mut buffer)].map(|pulled| pulled == Pull::Empty),
        [false; 2]
    );
    for _ in 0..10 {
        assert_eq!(pull(&mut buffer), Pull::Silence(480));
    }
    let target = buffer.target_delay();
    push(&mut buffer, 2, 1220, 30);
    assert_eq!(buffer.target_delay(), target, "it is not late");
    for _ in 0..8 {
        assert_eq!(pull(&mut buffer), Pull::Silence(480), "its time has not come");
    }
    assert_eq!(pull(&mut buffer), Pull::Packet(vec![2; 30].into()));
}
