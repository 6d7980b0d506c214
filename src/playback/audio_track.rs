//! Receives one remote audio track: publishes its packets to subscribers, in order of arrival.

use tokio::{sync::mpsc, task::AbortHandle};
use tracing::Instrument as _;

use crate::{
    media::{AudioPacket, Codec, Fanout, IncomingTrack, RtpPacket, Subscription, TrackFailure},
    model::PeerId,
};

/// One remote audio track, whose packets every subscriber receives in order of arrival. Dropping it
/// stops receiving.
#[derive(Debug)]
pub struct AudioTrack {
    peer: PeerId,
    codec: Codec,
    ssrc: u32,
    source_id: String,
    packets: Fanout<AudioPacket>,
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
            source_id: track.source_id,
            packets: Fanout::default(),
            incoming: Some(track.packets),
            failure: track.failure,
            task: None,
        }
    }

    /// Starts to receive. Must be called in a Tokio runtime. A further call does nothing.
    pub fn start(&mut self) {
        if let Some(incoming) = self.incoming.take() {
            let receive = ReceiveTask { packets: self.packets.clone() };
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

    /// The sender's track id, which names the audio source (see [`IncomingTrack::source_id`]).
    pub fn source_id(&self) -> &str {
        &self.source_id
    }

    /// Adds a subscriber whose queue holds `capacity` packets. If its queue is full, it continues
    /// at the newest packet; other subscribers do not notice. The subscription ends with the track.
    pub fn subscribe(&self, capacity: usize) -> Subscription<AudioPacket> {
        self.packets.subscribe(capacity)
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

struct ReceiveTask {
    packets: Fanout<AudioPacket>,
}

impl ReceiveTask {
    async fn run(self, mut incoming: mpsc::Receiver<RtpPacket>) {
        while let Some(packet) = incoming.recv().await {
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
