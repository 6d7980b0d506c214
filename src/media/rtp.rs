//! Received media, as a connection hands it on.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use crate::model::{Media, MediaTime, PeerId};

/// One received RTP packet (RFC 3550), without its header's bytes.
#[derive(Clone, Debug)]
pub struct RtpPacket {
    /// Sequence number, modulo 2¹⁶.
    pub sequence: u16,
    /// Timestamp, modulo 2³²: 90 kHz for pictures, 48 kHz for sound.
    pub timestamp: u32,
    /// The marker bit: the last packet of a picture.
    pub marker: bool,
    /// The payload.
    pub payload: Bytes,
    /// When it arrived.
    pub arrival: MediaTime,
}

/// A remote track that began to arrive.
#[derive(Debug)]
pub struct IncomingTrack {
    /// The connection it arrives on.
    pub peer: PeerId,
    /// [`Media::Audio`] or [`Media::Video`].
    pub media: Media,
    /// The SSRC of its packets: the key of its sender reports.
    pub ssrc: u32,
    /// The sender's media stream id (`a=msid`): tracks of one stream are played in step.
    pub stream: String,
    /// The sender's track id (`a=msid`): the source mix. The same participant's same mix arrives
    /// once per session and is to be played once.
    pub mix: String,
    /// The packets. Closed when the connection is; a full queue drops the newest, counted as
    /// lost by the receiver's sequence numbers.
    pub packets: mpsc::Receiver<RtpPacket>,
    /// Asks the sender for a keyframe; does nothing for sound.
    pub keyframes: KeyframeRequest,
    /// The sender reports seen so far.
    pub reports: SenderReports,
}

/// Asks a sender for a keyframe (PLI, RFC 4585 section 6.3.1). The connection paces it.
#[derive(Clone, Debug, Default)]
pub struct KeyframeRequest(Arc<Notify>);

impl KeyframeRequest {
    /// Asks; never waits. Requests that were not sent yet are one.
    pub fn request(&self) {
        self.0.notify_one();
    }

    /// Waits until somebody asks; the connection's end.
    pub async fn requested(&self) {
        self.0.notified().await;
    }
}

/// A sender's word on which wall clock time an RTP timestamp stands for (RFC 3550, 6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SenderReport {
    /// NTP time, seconds since 1900 in 32.32 fixed point.
    pub ntp: u64,
    /// The RTP timestamp of the same moment.
    pub rtp: u32,
}

/// The newest sender report of each SSRC on one connection.
#[derive(Clone, Debug, Default)]
pub struct SenderReports(Arc<Mutex<BTreeMap<u32, SenderReport>>>);

impl SenderReports {
    /// Notes a report; the oldest known SSRCs beyond 16 are not taken.
    pub fn note(&self, ssrc: u32, report: SenderReport) {
        let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reports.len() < 16 || reports.contains_key(&ssrc) {
            reports.insert(ssrc, report);
        }
    }

    /// The newest report of that SSRC.
    pub fn of(&self, ssrc: u32) -> Option<SenderReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&ssrc).copied()
    }
}
