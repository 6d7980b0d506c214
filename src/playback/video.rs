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
    clock::PlayoutClock,
    decode::VideoDecoder,
    intake::Intake,
    pool::{DecodePool, Outcome, Turns},
    tally::VideoTally,
};
use crate::{
    media::{IncomingTrack, KeyframeRequest, RtpPacket, Strip, Tee, VideoFrame, now, unix_ms},
    model::{MediaTime, VideoStats},
};

/// Receives one remote video track: reorders its packets, decodes them in the pool and puts the
/// frames into a [`Tee`] at their playout time. Dropping it stops receiving.
#[derive(Debug)]
pub struct VideoReceiver {
    task: AbortHandle,
    tally: watch::Sender<VideoTally>,
    decoding: Arc<AtomicBool>,
    keyframes: KeyframeRequest,
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
        let stats = watch::Sender::new(VideoTally::default());
        let is_decoding = Arc::new(AtomicBool::new(true));
        let keyframe_request = track.keyframes.clone();
        let receive = Receive {
            intake: Intake::new(),
            clock: PlayoutClock::new(),
            stage: Stage::Idle(Box::default()),
            due: VecDeque::with_capacity(Receive::MAX_DUE),
            turns: pool.turns(),
            keyframes: track.keyframes,
            decoding: Arc::clone(&is_decoding),
            was_decoding: true,
            tile: sink,
            on_first: Some(on_first),
            tally: stats.clone(),
        };
        let task = tokio::spawn(receive.run(track.packets)).abort_handle();
        Self { task, tally: stats, decoding: is_decoding, keyframes: keyframe_request }
    }

    /// The receive statistics since the start. `latency_ms` is the time from capture until the
    /// frame is put into the sink.
    pub fn stats(&self) -> VideoStats {
        self.tally.borrow().stats(now())
    }

    /// Sets whether the sender sends video. While it does not, missing frames are not a freeze.
    pub fn expect(&self, is_expected: bool) {
        self.tally.send_modify(|stats| stats.expect(is_expected, now()));
    }

    /// Switches decoding on or off. While it is off, packets are counted and dropped. When it is
    /// switched on, a keyframe is requested and the video continues with it.
    pub fn set_decoding(&self, on: bool) {
        if !self.decoding.swap(on, Ordering::AcqRel) && on {
            self.keyframes.request();
        }
    }
}

impl Drop for VideoReceiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Receive {
    intake: Intake,
    clock: PlayoutClock,
    stage: Stage,
    /// Decoded frames that wait for their playout time, in order.
    due: VecDeque<Due>,
    turns: Arc<Turns>,
    keyframes: KeyframeRequest,
    decoding: Arc<AtomicBool>,
    was_decoding: bool,
    tile: Tee<VideoFrame>,
    on_first: Option<Box<dyn FnOnce() + Send>>,
    tally: watch::Sender<VideoTally>,
}

/// The state of the decoder.
enum Stage {
    /// The decoder is available.
    Idle(Box<VideoDecoder>),
    /// The decoder is decoding, or waiting in the queue of the pool.
    Working(Pin<Box<dyn Future<Output = Option<Outcome>> + Send>>),
    /// The decoder was dropped with the pool.
    Gone,
}

struct Due {
    frame: VideoFrame,
    strip: Option<Strip>,
}

/// The event that woke the receiver's task.
enum Woken {
    Packet(Option<RtpPacket>),
    Decoded(Option<Outcome>),
    Deadline,
}

impl Receive {
    /// The most frames that wait for their playout time: 200 ms at 60 fps. Beyond it, the oldest is
    /// shown early.
    const MAX_DUE: usize = 12;

    async fn run(mut self, mut packets: mpsc::Receiver<RtpPacket>) {
        loop {
            match self.woken(&mut packets).await {
                Woken::Packet(Some(packet)) => {
                    if self.decoding.load(Ordering::Acquire) {
                        self.tally.send_modify(|stats| stats.came(packet.arrival));
                    }
                    self.intake.push(packet);
                    // Packets that arrived together are handled together.
                    for _ in 0..Intake::MAX_READY {
                        let Ok(packet) = packets.try_recv() else { break };
                        self.intake.push(packet);
                    }
                }
                Woken::Packet(None) => return,
                Woken::Decoded(done) => self.take_decoded(done),
                Woken::Deadline => {}
            }
            self.step(now());
        }
    }

    async fn woken(&mut self, packets: &mut mpsc::Receiver<RtpPacket>) -> Woken {
        let next_playout = self.due.front().map(|next| next.frame.time);
        let deadline = [next_playout, self.intake.deadline()].into_iter().flatten().min();
        let sleep = async {
            match deadline {
                Some(deadline) => time::sleep(deadline.since(now())).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            done = self.stage.done() => Woken::Decoded(done),
            () = sleep => Woken::Deadline,
            packet = packets.recv() => Woken::Packet(packet),
        }
    }

    /// Processes everything that is due at `now`.
    fn step(&mut self, now: MediaTime) {
        self.intake.advance(now);
        self.tally.send_modify(|stats| stats.received = self.intake.whole());
        let is_decoding = self.decoding.load(Ordering::Acquire);
        if is_decoding {
            if self.intake.takes_request(now) {
                self.keyframes.request();
            }
            self.decode_next();
        } else {
            self.intake.rest();
            if self.was_decoding {
                self.due.clear();
                self.tally.send_modify(|stats| stats.pause(now));
            }
        }
        self.was_decoding = is_decoding;
        while self.due.len() > Self::MAX_DUE
            || self.due.front().is_some_and(|next| next.frame.time <= now)
        {
            let Some(scheduled) = self.due.pop_front() else { break };
            self.show(scheduled, now);
        }
    }

    fn decode_next(&mut self) {
        if let Stage::Idle(_) = &self.stage
            && let Some(unit) = self.intake.next()
            && let Stage::Idle(decoder) = std::mem::replace(&mut self.stage, Stage::Gone)
        {
            let queue = Arc::clone(&self.turns);
            self.stage = Stage::Working(Box::pin(queue.decode(decoder, unit)));
        }
    }

    fn take_decoded(&mut self, done: Option<Outcome>) {
        let Some((decoder, decoded)) = done else {
            self.stage = Stage::Gone;
            return;
        };
        self.stage = Stage::Idle(decoder);
        match decoded.frame {
            Ok(Some(mut frame)) => {
                self.tally.send_modify(|stats| stats.decoded += 1);
                if self.was_decoding {
                    frame.time = self.clock.due(decoded.timestamp, decoded.arrival);
                    self.due.push_back(Due { frame, strip: decoded.strip });
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "received frame dropped");
                self.intake.restart();
            }
        }
    }

    fn show(&mut self, scheduled: Due, now: MediaTime) {
        self.tally.send_modify(|stats| {
            stats.show(scheduled.frame.size, scheduled.strip, now, unix_ms(now));
        });
        self.tile.put(&scheduled.frame);
        if let Some(on_first) = self.on_first.take() {
            on_first();
        }
    }
}

impl Stage {
    /// Waits until the decoder has finished. Pending forever if it is not busy.
    async fn done(&mut self) -> Option<Outcome> {
        match self {
            Self::Working(decoding) => decoding.await,
            Self::Idle(_) | Self::Gone => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        media::TeeGuard,
        model::{Media, Size},
        playback::testing::{Cutter, Painter, track},
    };

    /// Longer than any step takes on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Sender {
        painter: Painter,
        cutter: Cutter,
        packets: mpsc::Sender<RtpPacket>,
        stamp: u32,
    }

    impl Sender {
        fn cut(&mut self, key: bool) -> Vec<RtpPacket> {
            self.stamp += 3000;
            let nals = self.painter.paint(key, unix_ms(now()));
            self.cutter.cut(&nals, self.stamp, now())
        }

        async fn send(&mut self, key: bool) {
            for packet in self.cut(key) {
                self.packets.send(packet).await.unwrap();
            }
        }
    }

    struct Rig {
        sender: Sender,
        receiver: VideoReceiver,
        shown: TeeGuard<VideoFrame>,
        keyframes: KeyframeRequest,
        first: oneshot::Receiver<()>,
        _pool: Arc<DecodePool>,
    }

    fn rig(size: Size) -> Rig {
        let (track, packets, keyframes) = track(Media::Video);
        let (sink, pool) = (Tee::default(), Arc::new(DecodePool::new()));
        let shown = sink.attach();
        let (sender, first) = oneshot::channel();
        let on_first = Box::new(move || sender.send(()).unwrap());
        let receiver = VideoReceiver::start(track, &pool, sink, on_first);
        let packetizer = Cutter { sequence: 65_530 };
        let encoder = Painter::new(size);
        let sender = Sender { painter: encoder, cutter: packetizer, packets, stamp: 0 };
        Rig { sender, receiver, shown, keyframes, first, _pool: pool }
    }

    impl Rig {
        /// The number of the next frame that is shown.
        fn shown(&self) -> Option<u32> {
            let frame = self.shown.slot.wait(PATIENCE)?;
            Strip::read(&frame).map(|timecode| timecode.frame)
        }

        async fn asked(&self) {
            let requested = time::timeout(PATIENCE, self.keyframes.requested()).await;
            requested.expect("a keyframe is requested");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn frames_are_shown_in_order_and_measured() {
        let mut fixture = rig(Size::new(320, 180));
        for n in 0..10 {
            fixture.sender.send(n == 0).await;
            assert_eq!(fixture.shown(), Some(n));
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
        let mut fixture = rig(Size::new(320, 180));
        fixture.sender.send(true).await;
        assert_eq!(fixture.shown(), Some(0));
        let damaged = fixture.sender.cut(false);
        for packet in &damaged[1..] {
            fixture.sender.packets.send(packet.clone()).await.unwrap();
        }
        fixture.sender.send(false).await;
        fixture.asked().await;
        assert!(fixture.shown.slot.take().is_none(), "no incomplete frame is shown");
        fixture.sender.send(true).await;
        assert_eq!(fixture.shown(), Some(3));
        fixture.sender.send(false).await;
        assert_eq!(fixture.shown(), Some(4));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn after_a_frame_that_the_decoder_rejects_a_keyframe_is_requested() {
        let mut fixture = rig(Size::new(160, 90));
        let mut key = fixture.sender.cut(true);
        // The slice header after the header of the fragment: refers to an unknown picture parameter
        // set.
        let fragment = key.iter_mut().find(|packet| packet.payload[0] & 0x1f == 28).unwrap();
        let mut payload = fragment.payload.to_vec();
        payload[2..6].copy_from_slice(&[0x11; 4]);
        fragment.payload = payload.into();
        for packet in key {
            fixture.sender.packets.send(packet).await.unwrap();
        }
        fixture.asked().await;
        fixture.sender.send(true).await;
        assert_eq!(fixture.shown(), Some(1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn without_decoding_packets_are_counted_and_switching_it_on_requests_a_keyframe() {
        let mut fixture = rig(Size::new(320, 180));
        fixture.sender.send(true).await;
        assert_eq!(fixture.shown(), Some(0));
        fixture.receiver.set_decoding(false);
        for _ in 0..3 {
            fixture.sender.send(false).await;
        }
        let mut stats = fixture.receiver.tally.subscribe();
        let counted = time::timeout(PATIENCE, stats.wait_for(|stats| stats.received == 4)).await;
        assert_eq!(counted.expect("the frames are counted").unwrap().decoded, 1);
        fixture.receiver.set_decoding(true);
        fixture.asked().await;
        fixture.sender.send(false).await;
        fixture.sender.send(true).await;
        assert_eq!(fixture.shown(), Some(5));
        assert_eq!(fixture.receiver.stats().decoded, 2, "only the two keyframes are decoded");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dropped_receiver_closes_its_packet_channel() {
        let mut fixture = rig(Size::new(160, 90));
        fixture.sender.send(true).await;
        drop(fixture.receiver);
        let closed = time::timeout(PATIENCE, fixture.sender.packets.closed()).await;
        closed.expect("the channel is closed");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_receivers_share_a_pool_and_each_keeps_its_frame_order() {
        let pool = Arc::new(DecodePool::of(1));
        let mut fixtures: Vec<_> = (0..6)
            .map(|_| {
                let (track, packets, _) = track(Media::Video);
                let sink = Tee::default();
                let shown = sink.attach();
                let receiver = VideoReceiver::start(track, &pool, sink, Box::new(|| ()));
                let encoder = Painter::new(Size::new(160, 90));
                let packetizer = Cutter { sequence: 0 };
                let sender = Sender { painter: encoder, cutter: packetizer, packets, stamp: 0 };
                (sender, shown, receiver)
            })
            .collect();
        for n in 0..5 {
            for (sender, ..) in &mut fixtures {
                sender.send(n == 0).await;
            }
            for (_, shown, _) in &fixtures {
                let frame = shown.slot.wait(PATIENCE).expect("a frame");
                assert_eq!(Strip::read(&frame).map(|timecode| timecode.frame), Some(n));
            }
        }
        drop(pool);
        assert!(fixtures.iter().all(|(.., receiver)| receiver.stats().decoded == 5));
    }
}
