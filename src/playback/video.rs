//! One remote picture, from its packets to its tile.

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

/// One remote picture: its packets are put in order, decoded in the pool and shown on the tile at
/// the right moment. Dropping it stops that.
#[derive(Debug)]
pub struct VideoReceiver {
    task: AbortHandle,
    tally: watch::Sender<VideoTally>,
    decoding: Arc<AtomicBool>,
    keyframes: KeyframeRequest,
}

impl VideoReceiver {
    /// Begins to receive. Each frame put into `tile` carries the time at which it is to be shown,
    /// which is when it is put there. `on_first` is called once, on the first frame, in the
    /// receiver's task: it must not block.
    ///
    /// Must be called in a Tokio runtime.
    pub fn start(
        track: IncomingTrack,
        pool: &Arc<DecodePool>,
        tile: Tee<VideoFrame>,
        on_first: Box<dyn FnOnce() + Send>,
    ) -> Self {
        let tally = watch::Sender::new(VideoTally::default());
        let decoding = Arc::new(AtomicBool::new(true));
        let keyframes = track.keyframes.clone();
        let receive = Receive {
            intake: Intake::new(),
            clock: PlayoutClock::new(),
            stage: Stage::Idle(Box::default()),
            due: VecDeque::with_capacity(Receive::MAX_DUE),
            turns: pool.turns(),
            keyframes: track.keyframes,
            decoding: Arc::clone(&decoding),
            was_decoding: true,
            tile,
            on_first: Some(on_first),
            tally: tally.clone(),
        };
        let task = tokio::spawn(receive.run(track.packets)).abort_handle();
        Self { task, tally, decoding, keyframes }
    }

    /// The figures since the start. `latency_ms` is from capture until the frame is put into the
    /// tile.
    pub fn stats(&self) -> VideoStats {
        self.tally.borrow().stats(now())
    }

    /// Whether the sender says that it sends pictures; that none come is no freeze otherwise.
    pub fn expect(&self, pictures: bool) {
        self.tally.send_modify(|tally| tally.expect(pictures, now()));
    }

    /// Whether frames are decoded. While off, packets are counted and dropped; switched on again,
    /// a keyframe is asked for and the picture goes on with it.
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
    /// Decoded frames that are not to be shown yet, in order.
    due: VecDeque<Due>,
    turns: Arc<Turns>,
    keyframes: KeyframeRequest,
    decoding: Arc<AtomicBool>,
    was_decoding: bool,
    tile: Tee<VideoFrame>,
    on_first: Option<Box<dyn FnOnce() + Send>>,
    tally: watch::Sender<VideoTally>,
}

/// Where the decoder is.
enum Stage {
    /// Here, with nothing to do.
    Idle(Box<VideoDecoder>),
    /// At work, or waiting for its turn.
    Working(Pin<Box<dyn Future<Output = Option<Outcome>> + Send>>),
    /// Gone with the pool.
    Gone,
}

struct Due {
    frame: VideoFrame,
    strip: Option<Strip>,
}

/// What woke the receiver.
enum Woken {
    Packet(Option<RtpPacket>),
    Decoded(Option<Outcome>),
    Deadline,
}

impl Receive {
    /// Frames that wait for their time at most: 200 ms at 60 fps. The oldest is shown early.
    const MAX_DUE: usize = 12;

    async fn run(mut self, mut packets: mpsc::Receiver<RtpPacket>) {
        loop {
            match self.woken(&mut packets).await {
                Woken::Packet(Some(packet)) => {
                    if self.decoding.load(Ordering::Acquire) {
                        self.tally.send_modify(|tally| tally.came(packet.arrival));
                    }
                    self.intake.push(packet);
                    // Those that came with it, so that a burst is one step.
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
        let shown = self.due.front().map(|due| due.frame.time);
        let deadline = [shown, self.intake.deadline()].into_iter().flatten().min();
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

    /// Does what is to be done at `now`.
    fn step(&mut self, now: MediaTime) {
        self.intake.advance(now);
        self.tally.send_modify(|tally| tally.received = self.intake.whole());
        let decoding = self.decoding.load(Ordering::Acquire);
        if decoding {
            if self.intake.takes_request(now) {
                self.keyframes.request();
            }
            self.decode_next();
        } else {
            self.intake.rest();
            if self.was_decoding {
                self.due.clear();
                self.tally.send_modify(|tally| tally.pause(now));
            }
        }
        self.was_decoding = decoding;
        while self.due.len() > Self::MAX_DUE
            || self.due.front().is_some_and(|due| due.frame.time <= now)
        {
            let Some(due) = self.due.pop_front() else { break };
            self.show(due, now);
        }
    }

    fn decode_next(&mut self) {
        if let Stage::Idle(_) = &self.stage
            && let Some(unit) = self.intake.next()
            && let Stage::Idle(decoder) = std::mem::replace(&mut self.stage, Stage::Gone)
        {
            let turns = Arc::clone(&self.turns);
            self.stage = Stage::Working(Box::pin(turns.decode(decoder, unit)));
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
                self.tally.send_modify(|tally| tally.decoded += 1);
                if self.was_decoding {
                    frame.time = self.clock.due(decoded.timestamp, decoded.arrival);
                    self.due.push_back(Due { frame, strip: decoded.strip });
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "a received picture is dropped");
                self.intake.restart();
            }
        }
    }

    fn show(&mut self, due: Due, now: MediaTime) {
        self.tally.send_modify(|tally| {
            tally.show(due.frame.size, due.strip, now, unix_ms(now));
        });
        self.tile.put(&due.frame);
        if let Some(on_first) = self.on_first.take() {
            on_first();
        }
    }
}

impl Stage {
    /// Completes when the decoder is back; never while it is not at work.
    async fn done(&mut self) -> Option<Outcome> {
        match self {
            Self::Working(work) => work.await,
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

    /// Longer than anything here takes on a busy machine.
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
        let (tile, pool) = (Tee::default(), Arc::new(DecodePool::new()));
        let shown = tile.attach();
        let (tell, first) = oneshot::channel();
        let on_first = Box::new(move || tell.send(()).unwrap());
        let receiver = VideoReceiver::start(track, &pool, tile, on_first);
        let cutter = Cutter { sequence: 65_530 };
        let sender = Sender { painter: Painter::new(size), cutter, packets, stamp: 0 };
        Rig { sender, receiver, shown, keyframes, first, _pool: pool }
    }

    impl Rig {
        /// The number of the next picture that is shown.
        fn shown(&self) -> Option<u32> {
            let frame = self.shown.slot.wait(PATIENCE)?;
            Strip::read(&frame).map(|strip| strip.frame)
        }

        async fn asked(&self) {
            let asked = time::timeout(PATIENCE, self.keyframes.requested()).await;
            asked.expect("a keyframe was asked for");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn pictures_are_shown_one_by_one_and_measured() {
        let mut rig = rig(Size::new(320, 180));
        for n in 0..10 {
            rig.sender.send(n == 0).await;
            assert_eq!(rig.shown(), Some(n));
        }
        rig.first.try_recv().expect("the first picture was told");
        let stats = rig.receiver.stats();
        assert_eq!((stats.received, stats.decoded), (10, 10));
        assert_eq!((stats.width, stats.height, stats.strip.as_deref()), (320, 180, Some("Ada")));
        let latency = stats.latency_ms.expect("the strip tells it");
        assert!(latency.p50 <= latency.p95 && latency.p95 < 10_000.0, "{latency:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn after_a_lost_packet_a_keyframe_is_asked_for_and_the_picture_recovers() {
        let mut rig = rig(Size::new(320, 180));
        rig.sender.send(true).await;
        assert_eq!(rig.shown(), Some(0));
        let damaged = rig.sender.cut(false);
        for packet in &damaged[1..] {
            rig.sender.packets.send(packet.clone()).await.unwrap();
        }
        rig.sender.send(false).await;
        rig.asked().await;
        assert!(rig.shown.slot.take().is_none(), "nothing broken is shown");
        rig.sender.send(true).await;
        assert_eq!(rig.shown(), Some(3));
        rig.sender.send(false).await;
        assert_eq!(rig.shown(), Some(4));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn after_a_picture_that_the_decoder_refuses_a_keyframe_is_asked_for() {
        let mut rig = rig(Size::new(160, 90));
        let mut key = rig.sender.cut(true);
        // The slice's header, behind the header of the fragment: no such picture parameter set.
        let fragment = key.iter_mut().find(|packet| packet.payload[0] & 0x1f == 28).unwrap();
        let mut payload = fragment.payload.to_vec();
        payload[2..6].copy_from_slice(&[0x11; 4]);
        fragment.payload = payload.into();
        for packet in key {
            rig.sender.packets.send(packet).await.unwrap();
        }
        rig.asked().await;
        rig.sender.send(true).await;
        assert_eq!(rig.shown(), Some(1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn switched_off_it_counts_only_and_switched_on_it_asks_for_a_keyframe() {
        let mut rig = rig(Size::new(320, 180));
        rig.sender.send(true).await;
        assert_eq!(rig.shown(), Some(0));
        rig.receiver.set_decoding(false);
        for _ in 0..3 {
            rig.sender.send(false).await;
        }
        let mut tally = rig.receiver.tally.subscribe();
        let counted = time::timeout(PATIENCE, tally.wait_for(|tally| tally.received == 4)).await;
        assert_eq!(counted.expect("they are counted").unwrap().decoded, 1);
        rig.receiver.set_decoding(true);
        rig.asked().await;
        rig.sender.send(false).await;
        rig.sender.send(true).await;
        assert_eq!(rig.shown(), Some(5));
        assert_eq!(rig.receiver.stats().decoded, 2, "nothing between the two");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dropped_receiver_lets_go_of_its_packets_and_its_tile() {
        let mut rig = rig(Size::new(160, 90));
        rig.sender.send(true).await;
        drop(rig.receiver);
        let closed = time::timeout(PATIENCE, rig.sender.packets.closed()).await;
        closed.expect("nobody receives any more");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_receivers_share_a_pool_and_each_keeps_its_order() {
        let pool = Arc::new(DecodePool::of(1));
        let mut rigs: Vec<_> = (0..6)
            .map(|_| {
                let (track, packets, _) = track(Media::Video);
                let tile = Tee::default();
                let shown = tile.attach();
                let receiver = VideoReceiver::start(track, &pool, tile, Box::new(|| ()));
                let painter = Painter::new(Size::new(160, 90));
                let cutter = Cutter { sequence: 0 };
                (Sender { painter, cutter, packets, stamp: 0 }, shown, receiver)
            })
            .collect();
        for n in 0..5 {
            for (sender, ..) in &mut rigs {
                sender.send(n == 0).await;
            }
            for (_, shown, _) in &rigs {
                let frame = shown.slot.wait(PATIENCE).expect("a picture");
                assert_eq!(Strip::read(&frame).map(|strip| strip.frame), Some(n));
            }
        }
        drop(pool);
        assert!(rigs.iter().all(|(.., receiver)| receiver.stats().decoded == 5));
    }
}
