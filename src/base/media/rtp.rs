//! Received RTP, as the transport passes it to playback.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::{AudioLevel, Codec};
use crate::{
    model::{MediaTime, PeerId, Source, TrackId},
    supervision::catch_async,
};

/// One received RTP packet (RFC 3550): the payload and the header fields that playback needs.
#[derive(Clone, Debug)]
pub struct RtpPacket {
    /// Sequence number, modulo 2¹⁶.
    pub sequence: u16,
    /// Timestamp, modulo 2³²: 90 kHz for video, 48 kHz for audio.
    pub timestamp: u32,
    /// The marker bit: set on the last packet of a video frame.
    pub marker: bool,
    /// The payload without padding.
    pub payload: Bytes,
    /// Copies of payloads of earlier packets (RFC 2198), oldest first; only audio has any.
    pub copies: Vec<RedundantPayload>,
    /// The level of the audio, if its sender tells it.
    pub level: Option<AudioLevel>,
    /// The arrival time.
    pub arrival: MediaTime,
}

/// A copy of the payload of an earlier packet of audio.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedundantPayload {
    /// How much earlier its timestamp is, in samples at 48 kHz.
    pub offset: u32,
    /// The payload.
    pub payload: Bytes,
}

/// A remote track whose first packet has arrived.
#[derive(Debug)]
pub struct IncomingTrack {
    /// The peer that sends it.
    pub peer: PeerId,
    /// Its id on the peer connection, by which its sender signals what it carries; `None` if its
    /// media section is not one of ours.
    pub id: Option<TrackId>,
    /// The source of the sender that its media section carries.
    pub source: Source,
    /// The codec of its packets, which also says whether they are audio or video.
    pub codec: Codec,
    /// The SSRC of its packets, which is the key of its sender reports.
    pub ssrc: u32,
    /// The sender's media stream id (`a=msid`). Tracks of one stream are played in sync.
    pub stream_id: String,
    /// The sender's track id (`a=msid`), which names the mix that it carries unless its sender
    /// signals another. One mix of a participant arrives once per session that both share, and must
    /// be played only once.
    pub source_id: String,
    /// The packets. The channel closes with the peer connection. When it is full, the newest packet
    /// is dropped; the gap in the sequence numbers counts it as lost.
    pub packets: mpsc::Receiver<RtpPacket>,
    /// Requests a keyframe from the sender; does nothing for audio.
    pub keyframe_request: KeyframeRequest,
    /// The newest sender reports of the connection.
    pub sender_reports: SenderReports,
    /// The round trip time of the connection.
    pub round_trip: RoundTripTime,
    /// Makes the peer connection fail, because a consumer of the track has panicked.
    pub failure: TrackFailure,
}

/// Reports to the peer connection that a consumer of its remote track has failed. The connection is
/// then replaced, and its tracks with it.
#[derive(Clone, Debug, Default)]
pub struct TrackFailure(Arc<Notify>);

impl TrackFailure {
    /// Reports the failure; never waits.
    pub fn report(&self) {
        self.0.notify_one();
    }

    /// Waits until a failure is reported.
    pub async fn reported(&self) {
        self.0.notified().await;
    }

    /// Runs a task that consumes the track, and reports the failure if it panics.
    pub async fn supervise(self, name: &str, task: impl Future<Output = ()>) {
        if catch_async(name, task).await.is_err() {
            self.report();
        }
    }
}

/// Requests a keyframe from a sender (PLI, RFC 4585 section 6.3.1). The peer connection limits the
/// rate.
#[derive(Clone, Debug, Default)]
pub struct KeyframeRequest(Arc<Notify>);

impl KeyframeRequest {
    /// Requests a keyframe; never waits. Requests that were not sent yet are merged.
    pub fn request(&self) {
        self.0.notify_one();
    }

    /// Waits for a request. Called by the peer connection.
    pub async fn requested(&self) {
        self.0.notified().await;
    }
}

/// The wall clock time of an RTP timestamp, from an RTCP sender report (RFC 3550, 6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SenderReport {
    /// NTP time, seconds since 1900 in 32.32 fixed point.
    pub ntp: u64,
    /// The RTP timestamp of the same moment.
    pub rtp: u32,
}

/// The newest sender report of each SSRC on one peer connection.
#[derive(Clone, Debug, Default)]
pub struct SenderReports(Arc<Mutex<BTreeMap<u32, SenderReport>>>);

impl SenderReports {
    /// Stores a report. When 16 SSRCs are known, reports of further SSRCs are dropped.
    pub fn record(&self, ssrc: u32, report: SenderReport) {
        let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reports.len() < 16 || reports.contains_key(&ssrc) {
            reports.insert(ssrc, report);
        }
    }

    /// The newest report of an SSRC.
    pub fn latest(&self, ssrc: u32) -> Option<SenderReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&ssrc).copied()
    }
}

/// The newest round trip time of one peer connection. Any thread may read and write it.
#[derive(Clone, Debug, Default)]
pub struct RoundTripTime(Arc<AtomicU32>);

impl RoundTripTime {
    /// Stores a measurement.
    pub fn record(&self, time: Duration) {
        // Zero means that none is known.
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX).max(1);
        self.0.store(micros, Ordering::Relaxed);
    }

    /// The newest measurement, in microseconds.
    pub fn latest(&self) -> Option<Duration> {
        let micros = self.0.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros.into()))
    }
}
