//! Messages that one endpoint writes on the data channel are read by the other.

use std::time::Duration;

use quintet::{
    model::{
        ChatMessage, ChatText, DataChannelKind, PeerCommand, PeerEvent, PeerMedia, PeerState,
        PerChannel, PerSource,
    },
    transport::Impairment,
};
use tokio::time::Instant;

use super::pair::{Endpoint, Pair};

const DATA: PeerMedia =
    PeerMedia { sections: PerSource { camera: None, microphone: None }, channels: PerChannel::ALL };

fn text(number: u64, text: &str) -> ChatMessage {
    ChatMessage::Text { number, text: ChatText::new(text).expect("a valid text") }
}

fn write(end: &Endpoint, message: ChatMessage) {
    end.connection.command(PeerCommand::SendChannelMessage(message));
}

/// The messages that an endpoint has read so far.
fn read(end: &Endpoint) -> Vec<&ChatMessage> {
    let read = end.events.iter().filter_map(|event| {
        if let PeerEvent::ChannelMessage(message) = event { Some(message) } else { None }
    });
    read.collect()
}

fn is_writable(end: &Endpoint) -> bool {
    end.events.contains(&PeerEvent::ChannelOpen(DataChannelKind::Chat))
}

async fn writable(pair: &mut Pair) {
    pair.until("both channels to be open", |a, b| is_writable(a) && is_writable(b)).await;
}

#[tokio::test]
async fn both_ends_write_and_each_reads_the_other_in_order() {
    let mut pair = Pair::connected(DATA, DATA).await;
    writable(&mut pair).await;
    let longest = "ä\"\\\n".repeat(800);
    let sent = [text(1, "hello"), text(2, &longest), ChatMessage::Received { number: 9 }];
    for message in &sent {
        write(&pair.a, message.clone());
    }
    write(&pair.b, text(5, "and you?"));
    pair.until("all messages", |a, b| read(a).len() == 1 && read(b).len() == 3).await;
    assert_eq!(read(&pair.b), sent.iter().collect::<Vec<_>>());
    assert_eq!(read(&pair.a), [&text(5, "and you?")]);
}

#[tokio::test(start_paused = true)]
async fn messages_arrive_over_a_network_that_loses_packets_and_fails_for_a_while() {
    let bad =
        Impairment { seed: 3, loss: 0.1, delay: Duration::from_millis(20), ..Default::default() };
    let mut pair = Pair::impaired([DATA; 2], bad);
    pair.connect().await;
    writable(&mut pair).await;
    let sent: Vec<_> = (0..40).map(|number| text(number, &format!("message {number}"))).collect();
    for message in &sent[..20] {
        write(&pair.a, message.clone());
    }
    let down = Impairment { down: true, ..bad };
    pair.a.connection.impair(down);
    pair.b.connection.impair(down);
    for message in &sent[20..] {
        write(&pair.a, message.clone());
    }
    let disconnected = |end: &Endpoint| end.state == Some(PeerState::Disconnected);
    pair.until("both to be disconnected", |a, b| disconnected(a) && disconnected(b)).await;
    pair.a.connection.impair(bad);
    pair.b.connection.impair(bad);
    pair.until("all messages", |_, b| read(b).len() == 40).await;
    assert_eq!(read(&pair.b), sent.iter().collect::<Vec<_>>());
}

/// Sixty-four messages are read at once, and forty a second after that. So a hundred and twenty
/// more take at least three seconds, and none is lost.
#[tokio::test(start_paused = true)]
async fn a_flood_of_messages_is_read_slowly_and_completely() {
    let mut pair = Pair::impaired([DATA; 2], Impairment::default());
    pair.connect().await;
    writable(&mut pair).await;
    let start = Instant::now();
    let sent: Vec<_> = (0..184).map(|number| text(number, "flood")).collect();
    for (index, messages) in sent.chunks(46).enumerate() {
        for message in messages {
            write(&pair.a, message.clone());
        }
        let arrived = 46 * (index + 1);
        pair.until("these messages", |_, b| read(b).len() >= arrived).await;
    }
    assert!(start.elapsed() >= Duration::from_secs(3) - Duration::from_millis(100));
    assert_eq!(read(&pair.b), sent.iter().collect::<Vec<_>>());
}
