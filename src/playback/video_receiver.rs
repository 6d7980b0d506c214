//! Receives one remote video track: from RTP packets to frames that are shown.

use std::{
    collections::VecDeque,
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time,
};

use super::{
    decode_pool::{DecodePool, DecodeQueue, DecodeReply},
    playout_clock::PlayoutClock,
    receive_stats::VideoReceiveStats,
    video_decoder::VideoDecoder,
    video_receive_buffer::VideoReceiveBuffer,
};
use crate::{
    media::{
        BurntInTimecode, IncomingTrack, KeyframeRequest, RtpPacket, Tee, VideoFrame, now, unix_ms,
    },
    model::{MediaTime, VideoStats},
};

/// Receives one remote video track: reorders its packets, decodes them in the pool and puts the
/// frames into a [`Tee`] at their playout time. Dropping it stops receiving.
#[derive(Debug)]
pub struct VideoReceiver {
    task: AbortHandle,
    stats: watch::Sender<VideoReceiveStats>,
    is_decoding: Arc<AtomicBool>,
    keyframe_request: KeyframeRequest,
}

impl VideoReceiver {
    /// Starts to receive. Frames are put into `sink` at their playout time, which is also the time
    /// of the frame. `on_first` is called once in the receiver's task, for the first frame: it must
    /// not block.
    ///
    /// Must be called in a Tokio runtime.
    pub fn start(
        track: IncomingTrack,
        pool: &Arc<DecodePool>,
        sink: Tee<VideoFrame>,
        on_first: Box<dyn FnOnce() + Send>,
    ) -> Self {
        let stats = watch::Sender::new(VideoReceiveStats::default());
        let is_decoding = Arc::new(AtomicBool::new(true));
        let keyframe_request = track.keyframe_request.clone();
        let receive = ReceiveTask {
            buffer: VideoReceiveBuffer::new(),
            clock: PlayoutClock::new(),
            decoder: DecoderState::Idle(Box::default()),
            playout_queue: VecDeque::with_capacity(ReceiveTask::MAX_SCHEDULED),
            decode_queue: pool.queue(),
            keyframe_request: track.keyframe_request,
            is_decoding: Arc::clone(&is_decoding),
            was_decoding: true,
            sink,
            on_first: Some(on_first),
            stats: stats.clone(),
        };
        let task = tokio::spawn(receive.run(track.packets)).abort_handle();
        Self { task, stats, is_decoding, keyframe_request }
    }

    /// The receive statistics since the start. `latency_ms` is the time from capture until the
    /// frame is put into the sink.
    pub fn stats(&self) -> VideoStats {
        self.stats.borrow().stats(now())
    }

    /// Sets whether the sender sends video. While it does not, missing frames are not a freeze.
    pub fn set_video_expected(&self, is_expected: bool) {
        self.stats.send_modify(|stats| stats.set_video_expected(is_expected, now()));
    }

    /// Switches decoding on or off. While it is off, packets are counted and dropped. When it is
    /// switched on, a keyframe is requested and the video continues with it.
    pub fn set_decoding(&self, on: bool) {
        if !self.is_decoding.swap(on, Ordering::AcqRel) && on {
            self.keyframe_request.request();
        }
    }
}

impl Drop for VideoReceiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct ReceiveTask {
    buffer: VideoReceiveBuffer,
    clock: PlayoutClock,
    decoder: DecoderState,
    /// Decoded frames that wait for their playout time, in order.
    playout_queue: VecDeque<ScheduledFrame>,
    decode_queue: Arc<DecodeQueue>,
    keyframe_request: KeyframeRequest,
    is_decoding: Arc<AtomicBool>,
    was_decoding: bool,
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
}

/// The event that woke the receiver's task.
enum Wakeup {
    Packet(Option<RtpPacket>),
    Decoded(Option<DecodeReply>),
    Deadline,
}

impl ReceiveTask {
    /// The most frames that wait for their playout time: 200 ms at 60 fps. Beyond it, the oldest is
    /// shown early.
    const MAX_SCHEDULED: usize = 12;

    async fn run(mut self, mut packets: mpsc::Receiver<RtpPacket>) {
        loop {
            match self.next_wakeup(&mut packets).await {
                Wakeup::Packet(Some(packet)) => {
                    if self.is_decoding.load(Ordering::Acquire) {
                        self.stats.send_modify(|stats| stats.on_packet(packet.arrival));
                    }
                    self.buffer.push(packet);
                    // Packets that arrived together are handled together.
                    for _ in 0..VideoReceiveBuffer::MAX_READY {
                        let Ok(packet) = packets.try_recv() else { break };
                        self.buffer.push(packet);
                    }
                }
                Wakeup::Packet(None) => return,
                Wakeup::Decoded(done) => self.take_decoded(done),
                Wakeup::Deadline => {}
            }
            self.advance(now());
        }
    }

    async fn next_wakeup(&mut self, packets: &mut mpsc::Receiver<RtpPacket>) -> Wakeup {
        let next_playout = self.playout_queue.front().map(|next| next.frame.time);
        let deadline = [next_playout, self.buffer.deadline()].into_iter().flatten().min();
        let sleep = async {
            match deadline {
                Some(deadline) => time::sleep(deadline.since(now())).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            done = self.decoder.done() => Wakeup::Decoded(done),
            () = sleep => Wakeup::Deadline,
            packet = packets.recv() => Wakeup::Packet(packet),
        }
    }

    /// Processes everything that is due at `now`.
    fn advance(&mut self, now: MediaTime) {
        self.buffer.advance(now);
        self.stats.send_modify(|stats| stats.frames_received = self.buffer.frames_received());
        let is_decoding = self.is_decoding.load(Ordering::Acquire);
        if is_decoding {
            if self.buffer.take_keyframe_request(now) {
                self.keyframe_request.request();
            }
            self.decode_next();
        } else {
            self.buffer.pause();
            if self.was_decoding {
                self.playout_queue.clear();
                self.stats.send_modify(|stats| stats.pause(now));
            }
        }
        self.was_decoding = is_decoding;
        while self.playout_queue.len() > Self::MAX_SCHEDULED
            || self.playout_queue.front().is_some_and(|next| next.frame.time <= now)
        {
            let Some(scheduled) = self.playout_queue.pop_front() else { break };
            self.show(scheduled, now);
        }
    }

    fn decode_next(&mut self) {
        if let DecoderState::Idle(_) = &self.decoder
            && let Some(unit) = self.buffer.next_unit()
            && let DecoderState::Idle(decoder) =
                std::mem::replace(&mut self.decoder, DecoderState::Closed)
        {
            let queue = Arc::clone(&self.decode_queue);
            self.decoder = DecoderState::Busy(Box::pin(queue.decode(decoder, unit)));
        }
    }

    fn take_decoded(&mut self, done: Option<DecodeReply>) {
        let Some((decoder, decoded)) = done else {
            self.decoder = DecoderState::Closed;
            return;
        };
        self.decoder = DecoderState::Idle(decoder);
        match decoded.frame {
            Ok(Some(mut frame)) => {
                self.stats.send_modify(|stats| stats.frames_decoded += 1);
                if self.was_decoding {
                    frame.time = self.clock.due(decoded.timestamp, decoded.arrival);
                    self.playout_queue
                        .push_back(ScheduledFrame { frame, timecode: decoded.timecode });
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "received frame dropped");
                self.buffer.require_keyframe();
            }
        }
    }

    fn show(&mut self, scheduled: ScheduledFrame, now: MediaTime) {
        self.stats.send_modify(|stats| {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        media::{Codec, TeeGuard},
        model::Size,
        playback::testing::{TestPacketizer, TestVideoEncoder, incoming_track},
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

        async fn send(&mut self, key: bool) {
            for packet in self.next_packets(key) {
                self.packets.send(packet).await.unwrap();
            }
        }
    }

    struct Fixture {
        sender: Sender,
        receiver: VideoReceiver,
        shown: TeeGuard<VideoFrame>,
        keyframes: KeyframeRequest,
        first: oneshot::Receiver<()>,
        _pool: Arc<DecodePool>,
    }

    fn fixture(size: Size) -> Fixture {
        let (track, packets, keyframes) = incoming_track(Codec::H264);
        let (sink, pool) = (Tee::default(), Arc::new(DecodePool::new()));
        let shown = sink.attach();
        let (sender, first) = oneshot::channel();
        let on_first = Box::new(move || sender.send(()).unwrap());
        let receiver = VideoReceiver::start(track, &pool, sink, on_first);
        let packetizer = TestPacketizer { sequence: 65_530 };
        let encoder = TestVideoEncoder::new(size);
        let sender = Sender { encoder, packetizer, packets, timestamp: 0 };
        Fixture { sender, receiver, shown, keyframes, first, _pool: pool }
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
    async fn frames_are_shown_in_order_and_measured() {
        let mut fixture = fixture(Size::new(320, 180));
        for n in 0..10 {
            fixture.sender.send(n == 0).await;
            assert_eq!(fixture.next_shown(), Some(n));
        }
        fixture.first.try_recv().expect("the first frame is reported");
        let stats = fixture.receiver.stats();
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
        fixture.receiver.set_decoding(false);
        for _ in 0..3 {
            fixture.sender.send(false).await;
        }
        let mut stats = fixture.receiver.stats.subscribe();
        let counted =
            time::timeout(TIMEOUT, stats.wait_for(|stats| stats.frames_received == 4)).await;
        assert_eq!(counted.expect("the frames are counted").unwrap().frames_decoded, 1);
        fixture.receiver.set_decoding(true);
        fixture.expect_keyframe_request().await;
        fixture.sender.send(false).await;
        fixture.sender.send(true).await;
        assert_eq!(fixture.next_shown(), Some(5));
        assert_eq!(fixture.receiver.stats().decoded, 2, "only the two keyframes are decoded");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dropped_receiver_closes_its_packet_channel() {
        let mut fixture = fixture(Size::new(160, 90));
        fixture.sender.send(true).await;
        drop(fixture.receiver);
        let closed = time::timeout(TIMEOUT, fixture.sender.packets.closed()).await;
        closed.expect("the channel is closed");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_receivers_share_a_pool_and_each_keeps_its_frame_order() {
        let pool = Arc::new(DecodePool::with_threads(1));
        let mut fixtures: Vec<_> = (0..6)
            .map(|_| {
                let (track, packets, _) = incoming_track(Codec::H264);
                let sink = Tee::default();
                let shown = sink.attach();
                let receiver = VideoReceiver::start(track, &pool, sink, Box::new(|| ()));
                let encoder = TestVideoEncoder::new(Size::new(160, 90));
                let packetizer = TestPacketizer { sequence: 0 };
                let sender = Sender { encoder, packetizer, packets, timestamp: 0 };
                (sender, shown, receiver)
            })
            .collect();
        for n in 0..5 {
            for (sender, ..) in &mut fixtures {
                sender.send(n == 0).await;
            }
            for (_, shown, _) in &fixtures {
                let frame = shown.slot.wait(TIMEOUT).expect("a frame");
                assert_eq!(BurntInTimecode::read(&frame).map(|timecode| timecode.frame), Some(n));
            }
        }
        drop(pool);
        assert!(fixtures.iter().all(|(.., receiver)| receiver.stats().decoded == 5));
    }
}
