//! Receives one remote audio track: publishes its packets to subscribers, in order of arrival.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{sync::mpsc, task::AbortHandle};
use tracing::Instrument as _;

use crate::{
    media::{
        AudioLevel, AudioPacket, Codec, Fanout, IncomingTrack, RtpPacket, SenderReports,
        Subscription, TrackFailure,
    },
    model::PeerId,
};

/// One remote audio track, whose packets every subscriber receives in order of arrival. Dropping it
/// stops receiving.
#[derive(Debug)]
pub struct AudioTrack {
    peer: PeerId,
    codec: Codec,
    ssrc: u32,
    stream_id: String,
    source_id: String,
    sender_reports: SenderReports,
    packets: Fanout<AudioPacket>,
    levels: Arc<Mutex<LevelSum>>,
    incoming: Option<mpsc::Receiver<RtpPacket>>,
    failure: TrackFailure,
    task: Option<AbortHandle>,
}

impl AudioTrack {
    /// A track that receives nothing until [`Self::start`]. Subscribers that are added before miss
    /// no packet.
    pub fn new(track: IncomingTrack) -> Self {
        Self {
            peer: track.peer,
            codec: track.codec,
            ssrc: track.ssrc,
            stream_id: track.stream_id,
            source_id: track.source_id,
            sender_reports: track.sender_reports,
            packets: Fanout::default(),
            levels: Arc::default(),
            incoming: Some(track.packets),
            failure: track.failure,
            task: None,
        }
    }

    /// Starts to receive. Must be called in a Tokio runtime. A further call does nothing.
    pub fn start(&mut self) {
        if let Some(incoming) = self.incoming.take() {
            let levels = Arc::clone(&self.levels);
            let receive = ReceiveTask { packets: self.packets.clone(), levels };
            let failure = self.failure.clone();
            let task = failure.supervise("audio receiver", receive.run(incoming));
            self.task = Some(tokio::spawn(task.in_current_span()).abort_handle());
        }
    }

    /// The peer that sends the track.
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// The codec of the packets.
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

    /// The sender's track id, which names the audio source (see [`IncomingTrack::source_id`]).
    pub fn source_id(&self) -> &str {
        &self.source_id
    }

    /// Adds a subscriber whose queue holds `capacity` packets. If its queue is full, it continues
    /// at the newest packet; other subscribers do not notice. The subscription ends with the track.
    pub fn subscribe(&self, capacity: usize) -> Subscription<AudioPacket> {
        self.packets.subscribe(capacity)
    }

    /// What the packets since the last call say of their level.
    pub fn take_level(&self) -> ToldLevel {
        std::mem::take(&mut *self.levels.lock().unwrap_or_else(PoisonError::into_inner)).mean()
    }

    /// The number of subscribers.
    pub fn subscribers(&self) -> usize {
        self.packets.subscribers()
    }
}

impl Drop for AudioTrack {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// What the packets of a track say of their level.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ToldLevel {
    /// No packet came.
    NoPackets,
    /// The packets do not tell it.
    Untold,
    /// The mean of the packets, in dB relative to full scale.
    Dbfs(f32),
}

/// The sum of the energy of packets.
#[derive(Clone, Copy, Default, Debug)]
struct LevelSum {
    energy: f32,
    packets: u32,
    told: u32,
}

impl LevelSum {
    fn add(&mut self, level: Option<AudioLevel>) {
        self.packets += 1;
        if let Some(level) = level {
            self.energy += 10_f32.powf(level.dbfs() / 10.0);
            self.told += 1;
        }
    }

    fn mean(self) -> ToldLevel {
        match (self.packets, self.told) {
            (0, _) => ToldLevel::NoPackets,
            (_, 0) => ToldLevel::Untold,
            (_, told) => ToldLevel::Dbfs(10.0 * (self.energy / told as f32).log10()),
        }
    }
}

struct ReceiveTask {
    packets: Fanout<AudioPacket>,
    levels: Arc<Mutex<LevelSum>>,
}

impl ReceiveTask {
    async fn run(self, mut incoming: mpsc::Receiver<RtpPacket>) {
        while let Some(packet) = incoming.recv().await {
            self.levels.lock().unwrap_or_else(PoisonError::into_inner).add(packet.level);
            self.packets.publish(AudioPacket(packet));
        }
    }
}

impl Drop for ReceiveTask {
    /// Ends the subscriptions, also if the task is aborted.
    fn drop(&mut self) {
        self.packets.close();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::media::RtpPacket;
    use crate::playback::testing::{at, incoming_track, packet};

    async fn sequences(packets: &mut Subscription<AudioPacket>) -> Vec<u16> {
        let mut received = vec![];
        let until_end = async {
            while let Some(packet) = packets.recv().await {
                received.push(packet.0.sequence);
            }
        };
        let limited = tokio::time::timeout(Duration::from_secs(20), until_end).await;
        limited.expect("the subscription ends with the track");
        received
    }

    #[tokio::test]
    async fn each_subscriber_receives_the_packets_in_order_of_arrival_until_the_track_ends() {
        let (track, sender, _) = incoming_track(Codec::Opus);
        let mut track = AudioTrack::new(track);
        let [mut first, mut second, mut slow] = [8, 8, 2].map(|capacity| track.subscribe(capacity));
        track.start();
        for sequence in [7, 9, 8, 8, 65_535] {
            sender.send(packet(sequence, 0, false, vec![1], at(0))).await.unwrap();
        }
        drop(sender);
        assert_eq!(sequences(&mut first).await, [7, 9, 8, 8, 65_535]);
        assert_eq!(sequences(&mut second).await, [7, 9, 8, 8, 65_535]);
        assert_eq!(sequences(&mut slow).await, [65_535], "it continues at the newest packet");
        assert_eq!(slow.dropped(), 4);
    }

    #[tokio::test]
    async fn the_levels_of_the_packets_since_the_last_look_are_averaged() {
        let (track, sender, _) = incoming_track(Codec::Opus);
        let mut track = AudioTrack::new(track);
        let mut packets = track.subscribe(8);
        track.start();
        assert_eq!(track.take_level(), ToldLevel::NoPackets);
        let mut sequence = 0;
        let mut send = async |level: Option<f64>| {
            let level = level.map(|dbfs| AudioLevel::new(dbfs, true));
            let sent = RtpPacket { level, ..packet(sequence, 0, false, vec![1], at(0)) };
            sequence += 1;
            sender.send(sent).await.unwrap();
            packets.recv().await.unwrap();
        };
        send(Some(-20.0)).await;
        send(Some(-127.0)).await;
        let ToldLevel::Dbfs(level) = track.take_level() else { panic!("levels were told") };
        assert!((level + 23.0).abs() < 0.1, "{level}");
        send(None).await;
        assert_eq!(track.take_level(), ToldLevel::Untold);
        assert_eq!(track.take_level(), ToldLevel::NoPackets);
    }

    #[tokio::test]
    async fn a_dropped_track_closes_its_packet_channel_and_ends_its_subscriptions() {
        let (track, sender, _) = incoming_track(Codec::Opus);
        let mut track = AudioTrack::new(track);
        let mut subscription = track.subscribe(8);
        track.start();
        tokio::task::yield_now().await;
        drop(track);
        assert!(sequences(&mut subscription).await.is_empty());
        assert!(sender.is_closed());
    }
}
