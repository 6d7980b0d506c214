//! Receives one remote video track: from RTP packets to access units that subscribers share.

use std::future::pending;

use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time,
};
use tracing::Instrument as _;

use super::{receive_stats::VideoReceiveStats, video_receive_buffer::VideoReceiveBuffer};
use crate::{
    media::{
        AccessUnit, Codec, Fanout, IncomingTrack, KeyframeRequest, RoundTripTime, RtpPacket,
        SenderReports, Subscription, TrackFailure, now,
    },
    model::{MediaTime, VideoPlayoutStats, VideoStats},
};

/// One remote video track: its packets are reordered and depacketized once, and every subscriber
/// receives the access units, whether any of them decodes. Dropping it stops receiving.
#[derive(Debug)]
pub struct VideoTrack {
    codec: Codec,
    ssrc: u32,
    stream_id: String,
    source_id: String,
    sender_reports: SenderReports,
    units: Fanout<AccessUnit>,
    stats: watch::Sender<VideoReceiveStats>,
    receive: Option<(ReceiveTask, mpsc::Receiver<RtpPacket>)>,
    failure: TrackFailure,
    task: Option<AbortHandle>,
}

impl VideoTrack {
    /// A track that receives nothing until [`Self::start`]. Subscribers that are added before see
    /// the keyframe with which most tracks begin.
    pub fn new(track: IncomingTrack) -> Self {
        let mut stats = VideoReceiveStats::default();
        stats.set_paused(true, now());
        let (units, stats) = (Fanout::default(), watch::Sender::new(stats));
        let receive = ReceiveTask {
            buffer: VideoReceiveBuffer::new(),
            units: units.clone(),
            keyframe_request: track.keyframe_request,
            round_trip: track.round_trip,
            stats: stats.clone(),
        };
        let (receive, failure) = (Some((receive, track.packets)), track.failure);
        Self {
            codec: track.codec,
            ssrc: track.ssrc,
            stream_id: track.stream_id,
            source_id: track.source_id,
            sender_reports: track.sender_reports,
            units,
            stats,
            receive,
            failure,
            task: None,
        }
    }

    /// Starts to receive. Must be called in a Tokio runtime. A further call does nothing.
    pub fn start(&mut self) {
        if let Some((receive, packets)) = self.receive.take() {
            // A track that does not begin with a keyframe requests one at its first frame.
            self.units.take_keyframe_request();
            let failure = self.failure.clone();
            let task = failure.supervise("video receiver", receive.run(packets));
            self.task = Some(tokio::spawn(task.in_current_span()).abort_handle());
        }
    }

    /// The codec of the access units.
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// The SSRC of the packets.
    pub const fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// The sender's media stream id: tracks of one stream are played in sync (see
    /// [`IncomingTrack::stream_id`]).
    pub fn stream_id(&self) -> &str {
        &self.stream_id
    }

    /// The newest sender reports of the connection.
    pub fn sender_reports(&self) -> SenderReports {
        self.sender_reports.clone()
    }

    /// The sender's track id, which names the video source (see [`IncomingTrack::source_id`]).
    pub fn source_id(&self) -> &str {
        &self.source_id
    }

    /// Adds a subscriber whose queue holds `capacity` access units. It starts at a keyframe, which
    /// is requested from the sender. If its queue is full, it continues at a keyframe; other
    /// subscribers do not notice. The subscription ends with the track.
    pub fn subscribe(&self, capacity: usize) -> Subscription<AccessUnit> {
        self.units.subscribe(capacity)
    }

    /// The receive statistics since the start. `latency_ms` is the time from capture until the
    /// frame is put into the sink of the [`VideoPlayer`](super::VideoPlayer).
    pub fn stats(&self) -> VideoStats {
        self.stats.borrow().stats(now())
    }

    /// The same in the terms of W3C webrtc-stats. The jitter buffer's delay ends when a frame is
    /// put into the player's sink.
    pub fn playout_stats(&self) -> VideoPlayoutStats {
        self.stats.borrow().playout_stats(now())
    }

    /// Sets whether the sender sends video. While it does not, missing frames are not a freeze.
    pub fn set_video_expected(&self, is_expected: bool) {
        self.stats.send_modify(|stats| stats.set_video_expected(is_expected, now()));
    }

    /// The fan-out of the access units.
    pub(super) fn units(&self) -> Fanout<AccessUnit> {
        self.units.clone()
    }

    /// Makes the peer connection fail when the player panics.
    pub(super) fn failure(&self) -> TrackFailure {
        self.failure.clone()
    }

    /// The statistics, to which the player adds what it shows.
    pub(super) fn stats_sender(&self) -> watch::Sender<VideoReceiveStats> {
        self.stats.clone()
    }
}

impl Drop for VideoTrack {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

#[derive(Debug)]
struct ReceiveTask {
    buffer: VideoReceiveBuffer,
    units: Fanout<AccessUnit>,
    keyframe_request: KeyframeRequest,
    round_trip: RoundTripTime,
    stats: watch::Sender<VideoReceiveStats>,
}

impl ReceiveTask {
    /// The most packets that are handled together, after the first one.
    const MAX_BATCH: usize = 8;

    async fn run(mut self, mut packets: mpsc::Receiver<RtpPacket>) {
        loop {
            let mut is_keyframe_requested = false;
            tokio::select! {
                biased;
                () = self.units.keyframe_requested() => is_keyframe_requested = true,
                () = sleep_until(self.buffer.deadline()) => {}
                packet = packets.recv() => match packet {
                    Some(packet) => self.push_batch(packet, &mut packets),
                    None => return,
                }
            }
            self.advance(is_keyframe_requested, now());
        }
    }

    /// Takes packets that arrived together.
    fn push_batch(&mut self, first: RtpPacket, packets: &mut mpsc::Receiver<RtpPacket>) {
        self.stats.send_modify(|stats| stats.on_packet(first.arrival));
        self.buffer.set_round_trip(self.round_trip.latest());
        self.buffer.push(first);
        for _ in 0..Self::MAX_BATCH {
            let Ok(packet) = packets.try_recv() else { break };
            self.buffer.push(packet);
        }
    }

    /// Publishes what is complete at `now`, and requests a keyframe if one is needed.
    fn advance(&mut self, mut is_keyframe_requested: bool, now: MediaTime) {
        self.buffer.set_subscribed(self.units.subscribers() > 0);
        self.buffer.advance(now);
        let mut has_picture = false;
        while let Some(unit) = self.buffer.next_unit() {
            has_picture |= unit.has_picture;
            self.units.publish(unit);
        }
        self.stats.send_modify(|stats| stats.frames_received = self.buffer.frames_received());
        if has_picture && self.units.is_keyframe_awaited() {
            self.buffer.require_keyframe();
        }
        is_keyframe_requested |= self.units.take_keyframe_request();
        if is_keyframe_requested {
            self.buffer.on_keyframe_requested(now);
        }
        if is_keyframe_requested || self.buffer.take_keyframe_request(now) {
            self.keyframe_request.request();
        }
    }
}

impl Drop for ReceiveTask {
    /// Ends the subscriptions, also if the task is aborted.
    fn drop(&mut self) {
        self.units.close();
    }
}

/// Waits until this time; for ever without one.
pub(super) async fn sleep_until(deadline: Option<MediaTime>) {
    match deadline {
        Some(deadline) => time::sleep(deadline.since(now())).await,
        None => pending().await,
    }
}
