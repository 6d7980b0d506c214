//! The statistics panel.

use super::*;
use crate::model::{
    AudioPlayoutStats, CandidatePairStats, CandidateStats, CandidateType, DtlsTransportState,
    IceTransportState, InboundRtpStats, JitterBufferStats, ParticipantStats, PlayoutStats,
    Retransmissions, RtcStats, SessionStats, Stats, TransportStats, VideoPlayoutStats, fixtures,
};

/// The statistics of a call with one participant after that many seconds of received video.
fn stats_after(snapshot: &Snapshot, seconds: u64) -> Stats {
    let session = &snapshot.sessions[0];
    let participant = &session.participants[0];
    let candidate = |id: &str, port| CandidateStats {
        id: id.to_owned(),
        transport_id: "T".to_owned(),
        address: [192, 0, 2, 1].into(),
        port,
        protocol: "udp",
        candidate_type: CandidateType::Host,
    };
    let rtc = vec![
        RtcStats::Transport(TransportStats {
            id: "T".to_owned(),
            ice_state: Some(IceTransportState::Connected),
            dtls_state: DtlsTransportState::Connected,
            selected_candidate_pair_id: Some("P0".to_owned()),
        }),
        RtcStats::CandidatePair(path_after(seconds)),
        RtcStats::LocalCandidate(candidate("L0", 5000)),
        RtcStats::RemoteCandidate(candidate("R0", 6000)),
        RtcStats::InboundRtp(Box::new(video_after(seconds))),
    ];
    let participant = ParticipantStats {
        participant: participant.participant.clone(),
        name: participant.name.clone(),
        video: None,
        audio: None,
        retransmissions: Retransmissions::default(),
        estimate_bps: None,
        rtc,
    };
    let sessions = vec![SessionStats {
        session: session.session.clone(),
        kind: SessionKind::FIVE[0],
        participants: vec![participant],
    }];
    Stats { sessions, ..Stats::default() }
}

fn path_after(seconds: u64) -> CandidatePairStats {
    CandidatePairStats {
        id: "P0".to_owned(),
        transport_id: "T".to_owned(),
        local_candidate_id: "L0".to_owned(),
        remote_candidate_id: "R0".to_owned(),
        nominated: true,
        packets_sent: seconds,
        packets_received: 60 * seconds,
        bytes_sent: 500 * seconds,
        bytes_received: 85_000 * seconds,
        requests_sent: 2 * seconds,
        responses_received: 2 * seconds,
        current_round_trip_time: Some(0.012),
        total_round_trip_time: 0.02 * seconds as f64,
        available_outgoing_bitrate: 1_200_000,
        bitrate_sent: None,
        bitrate_received: None,
    }
}

fn video_after(seconds: u64) -> InboundRtpStats {
    let playout = VideoPlayoutStats {
        frames_received: 15 * seconds,
        frames_decoded: 15 * seconds,
        frames_dropped: 0,
        audio_video_offset: None,
        frame_width: Some(640),
        frame_height: Some(360),
        freeze_count: 2,
        total_freezes_duration: 1.5,
        jitter_buffer: JitterBufferStats {
            jitter_buffer_delay: 0.6 * seconds as f64,
            jitter_buffer_target_delay: 0.6 * seconds as f64,
            jitter_buffer_emitted_count: 15 * seconds,
        },
    };
    InboundRtpStats {
        id: "I7".to_owned(),
        ssrc: 7,
        kind: Media::Video,
        transport_id: "T".to_owned(),
        codec_id: "CI102".to_owned(),
        remote_id: None,
        track_identifier: None,
        packets_received: 99 * seconds,
        bytes_received: 80_000 * seconds,
        header_bytes_received: 1200 * seconds,
        retransmitted_packets_received: 0,
        retransmitted_bytes_received: 0,
        packets_lost: seconds as i64,
        jitter: 0.004,
        nack_count: 3,
        pli_count: Some(1),
        fir_count: Some(0),
        playout: Some(PlayoutStats::Video(playout)),
        mean_jitter_buffer_delay: None,
        frames_per_second: None,
        bitrate: None,
    }
}

#[test]
fn a_tile_says_what_is_poor_and_whose_connection_it_is() {
    let snapshot = five_sessions();
    let mut window = window(LARGE, snapshot.clone());
    let sentence = "The sound of Guest 1 has gaps: the connection between you is poor.";
    let is_told =
        |window: &Harness<'_, Option<App>>| window.query_all_by_label_contains(sentence).count();
    for second in 1..=10_u64 {
        let audio = AudioPlayoutStats {
            total_samples_received: 48_000 * second,
            concealed_samples: 4_800 * second,
            ..AudioPlayoutStats::default()
        };
        let audio = InboundRtpStats {
            packets_received: 45 * second,
            packets_lost: 5 * second as i64,
            playout: Some(PlayoutStats::Audio(audio)),
            ..fixtures::inbound_rtp(Media::Audio)
        };
        let mut stats = stats_after(&snapshot, 0);
        stats.sessions[0].participants[0].rtc = vec![RtcStats::InboundRtp(Box::new(audio))];
        app(&mut window).show_stats(stats, MediaTime::from_micros(second * 1_000_000));
        window.run();
        assert_eq!(is_told(&window), usize::from(second > 2), "after {second} s");
    }
}

#[test]
fn the_statistics_panel_shows_rates_losses_and_delays_of_each_stream_and_closes() {
    let snapshot = five_sessions();
    let mut window = window(LARGE, snapshot.clone());
    app(&mut window).statistics.toggle();
    window.run();
    window.get_by_label("Measuring …");
    for seconds in [10, 12] {
        let now = MediaTime::from_micros(seconds * 1_000_000);
        app(&mut window).show_stats(stats_after(&snapshot, seconds), now);
    }
    window.run();
    for text in [
        "Connected  ·  round trip 12 ms  ·  sending 4.0 kbit/s  ·  receiving 680 kbit/s",
        "192.0.2.1:5000 (own address)  to  192.0.2.1:6000 (own address)",
        "Received video",
        "640 kbit/s",
        "640 × 360",
        "15.0",
        "12 (1.0 %)",
        "40 ms",
        "2 (1.5 s)",
        "nackCount",
    ] {
        window.get_by_label(text);
    }
    assert!(window.query_by_label("roundTripTime").is_none(), "a row without any value");
    app(&mut window).statistics.toggle();
    window.run();
    assert!(window.query_by_label("Received video").is_none());
}

#[test]
fn figures_are_on_the_tiles_after_ctrl_shift_f_until_it_is_pressed_again() {
    let snapshot = five_sessions();
    let mut window = window(LARGE, snapshot.clone());
    let keys = Modifiers { ctrl: true, command: true, shift: true, ..Modifiers::default() };
    let texts = [
        "in 640 × 360, 15.0 fps, 680 kbit/s",
        "4.0 kbit/s of 1.20 Mbit/s",
        "round trip 12 ms, lost in 1.0 %",
        "video buffer 40 ms, freezes 2 (1.5 s)",
        "retransmitted 0 out, 0 in, NACK 3, PLI 1",
        "Conference: in 680 kbit/s, out 4.0 kbit/s",
    ];
    for is_shown in [true, false] {
        window.key_press_modifiers(keys, Key::F);
        window.run();
        for seconds in [10, 12] {
            let now = MediaTime::from_micros(seconds * 1_000_000);
            app(&mut window).show_stats(stats_after(&snapshot, seconds), now);
        }
        window.run();
        for text in texts {
            assert_eq!(window.query_by_label(text).is_some(), is_shown, "{text}");
        }
    }
    app(&mut window).statistics.toggle();
    window.run();
    assert_eq!(click(&mut window, "Figures on the tiles"), []);
    assert!(app(&mut window).tile_figures.is_on());
}

#[test]
fn ctrl_shift_d_and_the_button_of_a_card_toggle_the_statistics() {
    let one = session_status("a", SessionKind::FIVE[0], Role::Guest, 0);
    let mut window = window(LARGE, snapshot_of(vec![one]));
    let keys = Modifiers { ctrl: true, command: true, shift: true, ..Modifiers::default() };
    window.key_press_modifiers(keys, Key::D);
    window.run();
    window.get_by_label("Measuring …");
    window.key_press_modifiers(keys, Key::D);
    window.run();
    assert!(window.query_by_label("Measuring …").is_none());
    assert_eq!(click(&mut window, "Show people in Conference (0)"), []);
    assert_eq!(click(&mut window, "Statistics"), []);
    window.get_by_label("Measuring …");
}
