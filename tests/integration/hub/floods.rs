//! A client that floods another member through the hub is closed; the flooded member is not
//! affected.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use quintet::{
    model::{
        ClientMessage, ErrorCode, HubMessage, MAX_SDP_BYTES, ParticipantId, Payload, Presence,
    },
    signalling::Hub,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket},
    time::sleep,
};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use super::RawClient;
use crate::rig::in_process_hub::{MESH, join, open, signal, start_hub, with_timeout};

/// A downlink of 10 Mbit/s, in bytes for each [`TICK`].
const DOWNLINK: usize = 12_500;

const TICK: Duration = Duration::from_millis(10);

/// The longest description that the hub relays.
fn longest_offer() -> Payload {
    Payload::Offer { generation: 1, sdp: format!("m={}", "x".repeat(MAX_SDP_BYTES - 2)) }
}

#[tokio::test]
async fn a_client_that_floods_a_member_on_a_slow_network_is_closed_and_the_member_stays() {
    with_timeout(async {
        let hub = start_hub().await;
        let mut opener = RawClient::hello_at(slow_path_to(&hub).await).await;
        opener.send(&open("a", MESH)).await;
        opener.recv().await;
        let mut guest = RawClient::hello(&hub).await;
        guest.send(&join("a", false)).await;
        guest.recv().await;
        let flooder = guest.participant.clone();
        let flood = tokio::spawn(flood(guest, opener.participant.clone()));
        let mut relayed = 0;
        loop {
            let message = opener.recv().await;
            if let HubMessage::Signal { from, .. } = message {
                assert_eq!(from, flooder);
                relayed += 1;
            } else if let HubMessage::ParticipantPresence { presence, .. } = message {
                assert!(matches!(presence, Presence::Away { .. }), "{presence:?}");
                break;
            } else {
                assert!(matches!(message, HubMessage::ParticipantJoined { .. }), "{message:?}");
            }
        }
        let (refused, close_code) = flood.await.unwrap();
        assert_eq!((refused, close_code), (10, Some(CloseCode::Policy)));
        assert!((1..20).contains(&relayed), "{relayed} of 32 KiB came through");
        opener.send(&ClientMessage::Ping).await;
        assert_eq!(opener.recv().await, HubMessage::Pong, "its connection is the same");
    })
    .await;
}

#[tokio::test]
async fn many_clients_that_flood_a_member_that_does_not_read_do_not_close_its_connection() {
    with_timeout(async {
        let hub = start_hub().await;
        // The system's buffer is small on a real network as well.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        let stream = socket.connect(hub.address()).await.unwrap();
        let mut opener = RawClient::hello_over(stream, hub.address()).await;
        opener.send(&open("a", MESH)).await;
        opener.recv().await;
        let mut floods = vec![];
        for _ in 0..11 {
            let mut guest = RawClient::hello(&hub).await;
            guest.send(&join("a", false)).await;
            guest.recv().await;
            floods.push(tokio::spawn(flood(guest, opener.participant.clone())));
        }
        for flood in floods {
            let (refused, close_code) = flood.await.unwrap();
            assert_eq!((refused, close_code), (10, Some(CloseCode::Policy)));
        }
        opener.send(&ClientMessage::Ping).await;
        let (mut signals, mut others) = (0, 0);
        loop {
            let message = opener.recv().await;
            if message == HubMessage::Pong {
                break;
            }
            let is_signal = matches!(message, HubMessage::Signal { .. });
            *(if is_signal { &mut signals } else { &mut others }) += 1;
        }
        assert!(others >= 22, "all joins and closes were sent: {others}");
        println!("{signals} signals");
    })
    .await;
}

/// Sends signals as fast as the hub reads, until it closes the connection; returns how many were
/// refused, and the close code.
async fn flood(guest: RawClient, to: ParticipantId) -> (usize, Option<CloseCode>) {
    let text = serde_json::to_string(&signal("a", &to, longest_offer())).unwrap();
    let (mut sink, mut stream) = guest.socket.split();
    let send = async {
        while sink.send(Message::text(text.clone())).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let receive = async {
        let mut refused = 0;
        while let Some(Ok(message)) = stream.next().await {
            if let Message::Close(frame) = message {
                return (refused, frame.map(|frame| frame.code));
            }
            let Message::Text(text) = message else { continue };
            let message: HubMessage = serde_json::from_str(&text).unwrap();
            let code = ErrorCode::TooMany;
            let is_refusal =
                matches!(message, HubMessage::Error { code: received, .. } if received == code);
            refused += usize::from(is_refusal);
        }
        (refused, None)
    };
    tokio::select! {
        result = receive => result,
        () = send => unreachable!("it pends for ever"),
    }
}

/// A relay to the hub with a downlink of 10 Mbit/s and small buffers.
async fn slow_path_to(hub: &Hub) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, hub) = (listener.local_addr().unwrap(), hub.address());
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        let server = socket.connect(hub).await.unwrap();
        let (mut client_in, mut client_out) = client.into_split();
        let (mut hub_in, mut hub_out) = server.into_split();
        let up = tokio::io::copy(&mut client_in, &mut hub_out);
        let down = async {
            let mut bytes = vec![0; DOWNLINK];
            while let Ok(count @ 1..) = hub_in.read(&mut bytes).await {
                if client_out.write_all(&bytes[..count]).await.is_err() {
                    return;
                }
                sleep(TICK).await;
            }
        };
        tokio::join!(up, down)
    });
    address
}
