//! Plays one remote video track: from access units to frames that are shown.

use std::{
    collections::VecDeque,
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, task::AbortHandle};
use tracing::Instrument as _;

use super::{
    decode_pool::{DecodePool, DecodeQueue, DecodeReply},
    lip_sync::{LipSync, SoundClock},
    playout_clock::{ArrivedFrame, PlayoutClock, PlayoutTime},
    receive_stats::VideoReceiveStats,
    video_decoder::{DecodeOutcome, VideoDecoder},
    video_track::{VideoTrack, sleep_until},
};
use crate::{
    media::{
        AccessUnit, BurntInTimecode, Fanout, SenderReports, Subscription, SubscriptionSlot, Tee,
        VideoFrame, now, unix_ms,
    },
    model::MediaTime,
};

/// Plays one remote video track: decodes its access units in the pool and puts the frames into a
/// [`Tee`] at their playout time. Dropping it stops playing.
#[derive(Debug)]
pub struct VideoPlayer {
    task: AbortHandle,
    units: Fanout<AccessUnit>,
    /// What the task decodes.
    source: Arc<SubscriptionSlot<AccessUnit>>,
    is_decoding: AtomicBool,
    sound: SoundSlot,
}

/// The sound that belongs to the video, which its owner sets and its task reads.
type SoundSlot = Arc<Mutex<Option<SoundClock>>>;

impl VideoPlayer {
    /// Creates a player that decodes nothing until [`Self::set_decoding`]. Frames are put into
    /// `sink` at their playout time, which is also the time of the frame. `on_first` is called once
    /// in the player's task, for the first frame: it must not block.
    ///
    /// Must be called in a Tokio runtime.
    pub fn new(
        track: &VideoTrack,
        pool: &Arc<DecodePool>,
        sink: Tee<VideoFrame>,
        on_first: Box<dyn FnOnce() + Send>,
    ) -> Self {
        let source = Arc::<SubscriptionSlot<AccessUnit>>::default();
        let sound = SoundSlot::default();
        let playout = PlayoutTask {
            subscription: None,
            clock: PlayoutClock::new(),
            sync: LipSync::new(),
            sound: Arc::clone(&sound),
            reports: (track.ssrc(), track.sender_reports()),
            shown_at: MediaTime::default(),
            decoder: DecoderState::Idle(Box::default()),
            playout_queue: VecDeque::with_capacity(PlayoutTask::MAX_SCHEDULED),
            decode_queue: pool.queue(),
            sink,
            on_first: Some(on_first),
            stats: track.stats_sender(),
        };
        let task = track.failure().supervise("video player", playout.run(Arc::clone(&source)));
        let task = tokio::spawn(task.in_current_span()).abort_handle();
        Self { task, units: track.units(), source, is_decoding: AtomicBool::new(false), sound }
    }

    /// Sets the sound of the same participant, with which the video is played in sync; `None` if none
    /// of it is heard.
    pub fn set_sound(&self, sound: Option<SoundClock>) {
        *self.sound.lock().unwrap_or_else(PoisonError::into_inner) = sound;
    }

    /// Switches decoding on or off: subscribes to the track or ends the subscription. When it is
    /// switched on, a keyframe is requested and the video continues with it.
    pub fn set_decoding(&self, on: bool) {
        if self.is_decoding.swap(on, Ordering::AcqRel) != on {
            self.source.set(on.then(|| self.units.subscribe(PlayoutTask::MAX_WAITING)));
        }
    }
}

impl Drop for VideoPlayer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct PlayoutTask {
    /// `None` while decoding is off.
    subscription: Option<Subscription<AccessUnit>>,
    clock: PlayoutClock,
    sync: LipSync,
    sound: SoundSlot,
    /// The SSRC, and the sender reports of its connection.
    reports: (u32, SenderReports),
    /// When a frame was shown last.
    shown_at: MediaTime,
    decoder: DecoderState,
    /// Decoded frames that wait for their playout time, in order.
    playout_queue: VecDeque<ScheduledFrame>,
    decode_queue: Arc<DecodeQueue>,
    sink: Tee<VideoFrame>,
    on_first: Option<Box<dyn FnOnce() + Send>>,
    stats: watch::Sender<VideoReceiveStats>,
}

/// The state of the decoder.
enum DecoderState {
    /// The decoder is available.
    Idle(Box<VideoDecoder>),
    /// The decoder is decoding, or waiting in the queue of the pool.
    Busy(Pin<Box<dyn Future<Output = Option<DecodeReply>> + Send>>),
    /// The decoder was dropped with the pool.
    Closed,
}

struct ScheduledFrame {
    frame: VideoFrame,
    timecode: Option<BurntInTimecode>,
    /// When its last packet arrived.
    arrival: MediaTime,
    /// When the sound is heard that was captured with it.
    heard: Option<MediaTime>,
}

/// The event that woke the player's task.
enum Wakeup {
    /// Decoding was switched on or off.
    Source(Option<Subscription<AccessUnit>>),
    Decoded(Option<DecodeReply>),
    Deadline,
    /// The next access unit; `None` at the end of the track.
    Unit(Option<Arc<AccessUnit>>),
}

impl PlayoutTask {
    /// The most access units that wait for the decoder. Those behind a lost packet come all at once
    /// when it has arrived: 750 ms at 30 fps.
    const MAX_WAITING: usize = 24;

    /// The most frames that wait for their playout time: 400 ms at 60 fps. Beyond it, the oldest is
    /// shown early.
    const MAX_SCHEDULED: usize = 24;

    /// How long late frames are left out while newer ones wait: this computer may be too slow to
    /// decode all in time.
    const MAX_OVERTAKEN: Duration = Duration::from_millis(100);

    async fn run(mut self, source: Arc<SubscriptionSlot<AccessUnit>>) {
        loop {
            match self.next_wakeup(&source).await {
                Wakeup::Source(subscription) => self.set_source(subscription, now()),
                Wakeup::Decoded(done) => self.take_decoded(done),
                Wakeup::Deadline => {}
                Wakeup::Unit(Some(unit)) => self.decode(unit),
                Wakeup::Unit(None) => return,
            }
            self.show_due(now());
        }
    }

    /// Waits for the next event. A replaced source comes first, so that access units of the old one
    /// that already wait are not decoded.
    async fn next_wakeup(&mut self, source: &SubscriptionSlot<AccessUnit>) -> Wakeup {
        let next_playout = self.playout_queue.front().map(|next| next.frame.time);
        let is_idle = matches!(self.decoder, DecoderState::Idle(_));
        tokio::select! {
            biased;
            subscription = source.next() => Wakeup::Source(subscription),
            done = self.decoder.done() => Wakeup::Decoded(done),
            () = sleep_until(next_playout) => Wakeup::Deadline,
            unit = next_unit(&mut self.subscription), if is_idle => Wakeup::Unit(unit),
        }
    }

    fn set_source(&mut self, subscription: Option<Subscription<AccessUnit>>, now: MediaTime) {
        if subscription.is_none() {
            self.playout_queue.clear();
        }
        self.stats.send_modify(|stats| stats.set_paused(subscription.is_none(), now));
        self.subscription = subscription;
    }

    /// Gives the access unit to the decoder, which must be idle.
    fn decode(&mut self, unit: Arc<AccessUnit>) {
        let decoder = std::mem::replace(&mut self.decoder, DecoderState::Closed);
        if let DecoderState::Idle(decoder) = decoder {
            let queue = Arc::clone(&self.decode_queue);
            self.decoder = DecoderState::Busy(Box::pin(queue.decode(decoder, unit)));
        }
    }

    fn take_decoded(&mut self, done: Option<DecodeReply>) {
        let Some((decoder, decoded)) = done else {
            self.decoder = DecoderState::Closed;
            self.subscription = None;
            return;
        };
        self.decoder = DecoderState::Idle(decoder);
        match decoded.frame {
            Ok(Some(mut frame)) => {
                self.stats.send_modify(|stats| stats.frames_decoded += 1);
                if self.subscription.is_some() {
                    let DecodeOutcome { timestamp, arrival, is_keyframe, timecode, .. } = decoded;
                    let arrived = ArrivedFrame { timestamp, arrival, is_keyframe };
                    let (due, heard) = self.due(arrived, now());
                    frame.time = due.at;
                    if due.is_late && self.is_overtaken(now()) {
                        self.stats.send_modify(|stats| stats.frames_dropped += 1);
                        return;
                    }
                    self.playout_queue.push_back(ScheduledFrame {
                        frame,
                        timecode,
                        arrival,
                        heard,
                    });
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "received frame dropped");
                if let Some(subscription) = &mut self.subscription {
                    subscription.restart();
                }
            }
        }
    }

    /// When a frame is shown, and when the sound is heard that was captured with it.
    fn due(&mut self, frame: ArrivedFrame, now: MediaTime) -> (PlayoutTime, Option<MediaTime>) {
        let sound = self.sound.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.sync.set_sound(sound);
        let (ssrc, reports) = &self.reports;
        self.sync.on_report(reports.latest(*ssrc));
        let heard = self.sync.heard_at(frame.timestamp, now);
        let due = self.clock.due(frame, heard);
        if let Some(heard) = heard {
            self.sync.follow(due, heard, now);
        }
        (due, heard)
    }

    /// Whether a late frame need not be shown, because a newer one waits. Some are shown in any case.
    fn is_overtaken(&self, now: MediaTime) -> bool {
        let has_newer = self.subscription.as_ref().is_some_and(|units| !units.is_empty());
        has_newer && now.since(self.shown_at) < Self::MAX_OVERTAKEN
    }

    /// Shows the frames whose playout time has come.
    fn show_due(&mut self, now: MediaTime) {
        while self.playout_queue.len() > Self::MAX_SCHEDULED
            || self.playout_queue.front().is_some_and(|next| next.frame.time <= now)
        {
            let Some(scheduled) = self.playout_queue.pop_front() else { break };
            self.show(scheduled, now);
        }
    }

    fn show(&mut self, scheduled: ScheduledFrame, now: MediaTime) {
        self.shown_at = now;
        self.stats.send_modify(|stats| {
            stats.on_sound(scheduled.heard, now);
            stats.on_frame_emitted(scheduled.arrival, scheduled.frame.time, now);
            stats.on_frame_shown(scheduled.frame.size, scheduled.timecode, now, unix_ms(now));
        });
        self.sink.put(&scheduled.frame);
        if let Some(on_first) = self.on_first.take() {
            on_first();
        }
    }
}

impl DecoderState {
    /// Waits until the decoder has finished. Pending forever if it is not busy.
    async fn done(&mut self) -> Option<DecodeReply> {
        match self {
            Self::Busy(decoding) => decoding.await,
            Self::Idle(_) | Self::Closed => pending().await,
        }
    }
}

/// The next access unit; pending for ever without a subscription.
async fn next_unit(subscription: &mut Option<Subscription<AccessUnit>>) -> Option<Arc<AccessUnit>> {
    match subscription {
        Some(subscription) => subscription.recv().await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::{
        sync::{mpsc, oneshot},
        time,
    };

    use super::*;
    use crate::{
        media::{Codec, KeyframeRequest, MAX_LAG, RtpPacket, TeeGuard},
        model::Size,
        playback::testing::{TestPacketizer, TestVideoEncoder, annex_b, incoming_track},
    };

    /// Longer than any step takes on a busy machine.
    const TIMEOUT: Duration = Duration::from_secs(20);

    struct Sender {
        encoder: TestVideoEncoder,
        packetizer: TestPacketizer,
        packets: mpsc::Sender<RtpPacket>,
        timestamp: u32,
    }

    impl Sender {
        fn next_packets(&mut self, key: bool) -> Vec<RtpPacket> {
            self.timestamp += 3000;
            let nals = self.encoder.next_frame(key, unix_ms(now()));
            self.packetizer.packetize(&nals, self.timestamp, now())
        }

        /// Sends the next frame. Returns the size of its access unit in bytes.
        async fn send(&mut self, key: bool) -> usize {
            self.timestamp += 3000;
            let nals = self.encoder.next_frame(key, unix_ms(now()));
            for packet in self.packetizer.packetize(&nals, self.timestamp, now()) {
                self.packets.send(packet).await.unwrap();
            }
            annex_b(&nals).len()
        }
    }

    struct Fixture {
        sender: Sender,
        track: VideoTrack,
        player: VideoPlayer,
        shown: TeeGuard<VideoFrame>,
        keyframes: KeyframeRequest,
        first: oneshot::Receiver<()>,
        pool: Arc<DecodePool>,
    }

    /// A player that decodes, and the sender of its track.
    fn fixture(size: Size) -> Fixture {
        let mut fixture = unstarted_fixture(size);
        fixture.player.set_decoding(true);
        fixture.track.start();
        fixture
    }

    fn unstarted_fixture(size: Size) -> Fixture {
        let (track, packets, keyframes) = incoming_track(Codec::H264);
        let (sink, pool) = (Tee::default(), Arc::new(DecodePool::new()));
        let shown = sink.attach();
        let (sender, first) = oneshot::channel();
        let on_first = Box::new(move || sender.send(()).unwrap());
        let track = VideoTrack::new(track);
        let player = VideoPlayer::new(&track, &pool, sink, on_first);
        let packetizer = TestPacketizer { sequence: 65_530 };
        let encoder = TestVideoEncoder::new(size);
        let sender = Sender { encoder, packetizer, packets, timestamp: 0 };
        Fixture { sender, track, player, shown, keyframes, first, pool }
    }

    impl Fixture {
        /// The number of the next frame that is shown.
        fn next_shown(&self) -> Option<u32> {
            let frame = self.shown.slot.wait(TIMEOUT)?;
            BurntInTimecode::read(&frame).map(|timecode| timecode.frame)
        }

        async fn expect_keyframe_request(&self) {
            let requested = time::timeout(TIMEOUT, self.keyframes.requested()).await;
            requested.expect("a keyframe is requested");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_player_that_panics_makes_the_connection_fail() {
        let mut fixture = fixture(Size::new(320, 180));
        // `on_first` panics, because nobody waits for it.
        fixture.first.close();
        fixture.sender.send(true).await;
        let failure = fixture.track.failure();
        fixture.sender.send(false).await;
        time::timeout(TIMEOUT, failure.reported()).await.expect("the failure is reported");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn frames_are_shown_in_order_and_measured() {
        let mut fixture = fixture(Size::new(320, 180));
        for n in 0..10 {
            fixture.sender.send(n == 0).await;
            assert_eq!(fixture.next_shown(), Some(n));
        }
        fixture.first.try_recv().expect("the first frame is reported");
        let stats = fixture.track.stats();
        assert_eq!((stats.received, stats.decoded), (10, 10));
        assert_eq!((stats.width, stats.height, stats.strip.as_deref()), (320, 180, Some("Ada")));
        let latency = stats.latency_ms.expect("the timecode gives the latency");
        assert!(latency.p50 <= latency.p95 && latency.p95 < 10_000.0, "{latency:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn after_a_lost_packet_a_keyframe_is_requested_and_the_video_recovers() {
        let mut fixture = fixture(Size::new(320, 180));
        fixture.sender.send(true).await;
        assert_eq!(fixture.next_shown(), Some(0));
        let damaged = fixture.sender.next_packets(false);
        for packet in &damaged[1..] {
            fixture.sender.packets.send(packet.clone()).await.unwrap();
        }
        fixture.sender.send(false).await;
        fixture.expect_keyframe_request().await;
        assert!(fixture.shown.slot.take().is_none(), "no incomplete frame is shown");
        fixture.sender.send(true).await;
        assert_eq!(fixture.next_shown(), Some(3));
        fixture.sender.send(false).await;
        assert_eq!(fixture.next_shown(), Some(4));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn after_a_frame_that_the_decoder_rejects_a_keyframe_is_requested() {
        let mut fixture = fixture(Size::new(160, 90));
        let mut key = fixture.sender.next_packets(true);
        // The slice header after the header of the fragment: refers to an unknown picture parameter
        // set.
        let fragment = key.iter_mut().find(|packet| packet.payload[0] & 0x1f == 28).unwrap();
        let mut payload = fragment.payload.to_vec();
        payload[2..6].copy_from_slice(&[0x11; 4]);
        fragment.payload = payload.into();
        for packet in key {
            fixture.sender.packets.send(packet).await.unwrap();
        }
        fixture.expect_keyframe_request().await;
        fixture.sender.send(true).await;
        assert_eq!(fixture.next_shown(), Some(1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn without_decoding_packets_are_counted_and_switching_it_on_requests_a_keyframe() {
        let mut fixture = fixture(Size::new(320, 180));
        fixture.sender.send(true).await;
        assert_eq!(fixture.next_shown(), Some(0));
        fixture.player.set_decoding(false);
        for _ in 0..3 {
            fixture.sender.send(false).await;
        }
        let mut stats = fixture.track.stats_sender().subscribe();
        let counted =
            time::timeout(TIMEOUT, stats.wait_for(|stats| stats.frames_received == 4)).await;
        assert_eq!(counted.expect("the frames are counted").unwrap().frames_decoded, 1);
        fixture.player.set_decoding(true);
        fixture.expect_keyframe_request().await;
        fixture.sender.send(false).await;
        fixture.sender.send(true).await;
        assert_eq!(fixture.next_shown(), Some(5));
        assert_eq!(fixture.track.stats().decoded, 2, "only the two keyframes are decoded");
    }

    /// Receives access units as a recorder would: their number, their bytes, and whether one of
    /// them follows a loss.
    async fn record(units: &mut Subscription<AccessUnit>, count: usize) -> (usize, bool) {
        let (mut bytes, mut has_loss) = (0, false);
        for _ in 0..count {
            let unit = time::timeout(TIMEOUT, units.recv()).await.expect("an access unit");
            let unit = unit.expect("the track goes on");
            bytes += unit.data.len();
            has_loss |= unit.follows_loss;
        }
        (bytes, has_loss)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_second_subscriber_receives_each_access_unit_beside_the_decoder() {
        let mut fixture = unstarted_fixture(Size::new(320, 180));
        let mut recorder = fixture.track.subscribe(MAX_LAG);
        fixture.player.set_decoding(true);
        fixture.track.start();
        for n in 0..10 {
            let bytes = fixture.sender.send(n == 0).await;
            assert_eq!(fixture.next_shown(), Some(n));
            assert_eq!(record(&mut recorder, 1).await, (bytes, false));
        }
        assert_eq!((fixture.track.stats().decoded, recorder.dropped()), (10, 0));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_subscriber_receives_access_units_without_any_decoding() {
        let mut fixture = unstarted_fixture(Size::new(320, 180));
        let mut recorder = fixture.track.subscribe(MAX_LAG);
        fixture.track.start();
        for n in 0..5 {
            let bytes = fixture.sender.send(n == 0).await;
            assert_eq!(record(&mut recorder, 1).await, (bytes, false));
        }
        let lost = fixture.sender.next_packets(false);
        fixture.sender.packets.send(lost.last().unwrap().clone()).await.unwrap();
        fixture.expect_keyframe_request().await;
        let bytes = fixture.sender.send(true).await;
        assert_eq!(record(&mut recorder, 1).await, (bytes, true));
        let stats = fixture.track.stats();
        assert_eq!((stats.decoded, stats.frozen_ms, fixture.pool.thread_count()), (0, 0, 0));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_track_that_begins_with_a_keyframe_requests_none_and_a_later_subscriber_does() {
        let mut fixture = fixture(Size::new(160, 90));
        for n in 0..3 {
            fixture.sender.send(n == 0).await;
            assert_eq!(fixture.next_shown(), Some(n));
        }
        let requested = fixture.keyframes.requested().now_or_never();
        assert!(requested.is_none(), "the stream is complete");
        let mut recorder = fixture.track.subscribe(MAX_LAG);
        fixture.expect_keyframe_request().await;
        let bytes = fixture.sender.send(true).await;
        assert_eq!(record(&mut recorder, 1).await, (bytes, false));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_slow_subscriber_continues_at_a_keyframe_and_does_not_slow_down_the_decoder() {
        let mut fixture = unstarted_fixture(Size::new(160, 90));
        let mut slow = fixture.track.subscribe(MAX_LAG);
        fixture.player.set_decoding(true);
        fixture.track.start();
        for n in 0..MAX_LAG as u32 + 4 {
            fixture.sender.send(n == 0).await;
            assert_eq!(fixture.next_shown(), Some(n));
        }
        fixture.expect_keyframe_request().await;
        fixture.sender.send(true).await;
        assert_eq!(fixture.next_shown(), Some(MAX_LAG as u32 + 4));
        assert_eq!(slow.dropped(), MAX_LAG as u64 + 4);
        let unit = slow.try_recv().expect("the keyframe");
        assert!(unit.is_keyframe && !unit.follows_loss && slow.try_recv().is_none());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dropped_track_closes_its_packet_channel_and_ends_its_subscriptions() {
        let mut fixture = fixture(Size::new(160, 90));
        fixture.sender.send(true).await;
        let mut recorder = fixture.track.subscribe(MAX_LAG);
        drop(fixture.track);
        let closed = time::timeout(TIMEOUT, fixture.sender.packets.closed()).await;
        closed.expect("the channel is closed");
        let end = async { while recorder.recv().await.is_some() {} };
        time::timeout(TIMEOUT, end).await.expect("the subscription ends");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_players_share_a_pool_and_each_keeps_its_frame_order() {
        let pool = Arc::new(DecodePool::with_threads(1));
        let mut fixtures: Vec<_> = (0..6)
            .map(|_| {
                let (track, packets, _) = incoming_track(Codec::H264);
                let sink = Tee::default();
                let shown = sink.attach();
                let mut track = VideoTrack::new(track);
                let player = VideoPlayer::new(&track, &pool, sink, Box::new(|| ()));
                player.set_decoding(true);
                track.start();
                let encoder = TestVideoEncoder::new(Size::new(160, 90));
                let packetizer = TestPacketizer { sequence: 0 };
                let sender = Sender { encoder, packetizer, packets, timestamp: 0 };
                (sender, shown, track, player)
            })
            .collect();
        for n in 0..5 {
            for (sender, ..) in &mut fixtures {
                sender.send(n == 0).await;
            }
            for (_, shown, ..) in &fixtures {
                let frame = shown.slot.wait(TIMEOUT).expect("a frame");
                assert_eq!(BurntInTimecode::read(&frame).map(|timecode| timecode.frame), Some(n));
            }
        }
        drop(pool);
        assert!(fixtures.iter().all(|(.., track, _)| track.stats().decoded == 5));
    }
}
