//! Snapshots and statistics for tests.

use std::sync::Arc;

use super::{
    CandidatePairStats, DataUse, DeviceKind, DeviceState, Enabled, InboundRtpStats, Media,
    MediaTime, ParticipantId, ParticipantState, ParticipantStatus, PeerId, PerSource, Role,
    SessionId, SessionKind, SessionLink, SessionState, SessionStatus, Snapshot,
};

/// A session id; panics if `text` is not one.
pub fn session_id(text: &str) -> SessionId {
    SessionId::parse(text).expect("a session id")
}

/// A live session with `people` participants, named "Person 0" and so on.
pub fn session_status(name: &str, kind: SessionKind, role: Role, people: usize) -> SessionStatus {
    let hub = "127.0.0.1:7340".parse().expect("an address");
    let person = |index: usize| ParticipantStatus {
        participant: ParticipantId::from_digest([index as u8; 10]),
        name: format!("Person {index}"),
        role: if role == Role::Guest && index == 0 { Role::Opener } else { Role::Guest },
        state: ParticipantState::Live,
        since: MediaTime::default(),
        sends: PerSource::ALL,
        left_out: None,
        peer: Some(PeerId(index as u64)),
    };
    SessionStatus {
        session: session_id(name),
        kind: Some(kind),
        role,
        link: Some(SessionLink { hub, session: session_id(name) }),
        hub: None,
        limit: Some(12),
        state: SessionState::Live,
        enabled: Enabled::default(),
        data_use: DataUse::Full,
        is_raised: false,
        sending: PerSource::from_fn(|_| people > 0),
        participants: (0..people).map(person).collect(),
        active_speaker: None,
        locked: false,
        removed: vec![],
    }
}

/// A snapshot with these sessions and a running camera.
pub fn snapshot_of(sessions: Vec<SessionStatus>) -> Snapshot {
    let sessions = sessions.into_iter().map(Arc::new).collect();
    Snapshot { sessions, ..snapshot_with(DeviceKind::CAMERA, DeviceState::Running) }
}

/// A snapshot without sessions, with a device in this state.
pub fn snapshot_with(device: DeviceKind, state: DeviceState) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.devices[device] = state;
    snapshot
}

/// The statistics of a received stream of which nothing has arrived.
pub fn inbound_rtp(kind: Media) -> InboundRtpStats {
    InboundRtpStats {
        id: "I1".to_owned(),
        ssrc: 1,
        kind,
        transport_id: "T".to_owned(),
        codec_id: "C".to_owned(),
        remote_id: None,
        track_identifier: None,
        packets_received: 0,
        bytes_received: 0,
        header_bytes_received: 0,
        retransmitted_packets_received: 0,
        retransmitted_bytes_received: 0,
        packets_lost: 0,
        jitter: 0.0,
        nack_count: 0,
        pli_count: None,
        fir_count: None,
        playout: None,
        mean_jitter_buffer_delay: None,
        frames_per_second: None,
        bitrate: None,
    }
}

/// The statistics of a candidate pair that has just been selected.
pub fn candidate_pair() -> CandidatePairStats {
    CandidatePairStats {
        id: "P0".to_owned(),
        transport_id: "T".to_owned(),
        local_candidate_id: "L0".to_owned(),
        remote_candidate_id: "R0".to_owned(),
        nominated: true,
        packets_sent: 0,
        packets_received: 0,
        bytes_sent: 0,
        bytes_received: 0,
        requests_sent: 0,
        responses_received: 0,
        current_round_trip_time: None,
        total_round_trip_time: 0.0,
        available_outgoing_bitrate: 0,
        bitrate_sent: None,
        bitrate_received: None,
    }
}
