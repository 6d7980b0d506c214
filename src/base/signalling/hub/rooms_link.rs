//! The way of a participant to the rooms, whatever its client speaks.
//!
//! The way back is the outbox that comes with `hello`; its receiver yields messages as values. A
//! WebSocket (`hub/connection.rs`) is one user of both.

use std::{net::IpAddr, time::Duration};

use tokio::sync::oneshot;

use super::{
    listener::HubCx, outbox::Outbox, parse::MessageRejection, rooms_actor::ConnectionEvent,
};
use crate::{
    model::{ClientMessage, ParticipantId, SessionId},
    signalling::rooms::{ConnectionId, RoomsInput, SessionAbout},
};

/// A participant's connection to the rooms. Close it with [`Self::close`]; without that, the rooms
/// close it as silent.
#[derive(Debug)]
pub(super) struct RoomsLink<'a> {
    /// The id of the connection, never used again.
    pub(super) id: ConnectionId,
    /// The address that joins and opens count for.
    pub(super) source: IpAddr,
    /// The hub.
    pub(super) cx: &'a HubCx,
}

/// The rooms' task has ended.
#[derive(Debug)]
pub(super) struct RoomsClosed;

impl RoomsLink<'_> {
    /// Introduces the participant. From then on the rooms alone keep the outbox open: when they
    /// drop it, the connection has ended.
    ///
    /// # Errors
    /// [`RoomsClosed`]
    pub(super) async fn hello(&self, outbox: Outbox, hello: RoomsInput) -> Result<(), RoomsClosed> {
        self.send_event(ConnectionEvent::Hello { source: self.source, outbox, hello }).await
    }

    /// Whether a participant has a seat in any session; `false` if the rooms have ended.
    pub(super) async fn has_any_seat(&self, participant: &ParticipantId) -> bool {
        let (answer, has_seat) = oneshot::channel();
        let sent = self.send_event(ConnectionEvent::SeatQuery(participant.clone(), answer)).await;
        sent.is_ok() && has_seat.await == Ok(true)
    }

    /// What anybody may learn of a session, or how long this address has to wait before it may ask.
    /// No `hello` is needed.
    ///
    /// # Errors
    /// [`RoomsClosed`]
    pub(super) async fn about(
        &self,
        session: SessionId,
    ) -> Result<Result<SessionAbout, Duration>, RoomsClosed> {
        let (answer, about) = oneshot::channel();
        self.send_event(ConnectionEvent::About(self.source, session, answer)).await?;
        about.await.map_err(|_| RoomsClosed)
    }

    /// Sends a message to the rooms. Waits for its turn if it opens or joins a session; returns the
    /// rejection if that takes too long.
    ///
    /// # Errors
    /// [`RoomsClosed`], also if the rooms have closed this connection.
    pub(super) async fn send(
        &self,
        message: ClientMessage,
    ) -> Result<Option<MessageRejection>, RoomsClosed> {
        if matches!(message, ClientMessage::Open { .. }) {
            // The answer has a link: it must carry the current address of the hub.
            self.cx.link_base.refresh().await;
        }
        if let Some(session) = session_to_enter(&message) {
            let (answer, permit) = oneshot::channel();
            self.send_event(ConnectionEvent::JoinPermit(session.clone(), answer)).await?;
            if !permit.await.map_err(|_| RoomsClosed)? {
                return Ok(Some(MessageRejection::too_many_joins(session.clone())));
            }
        }
        self.send_event(ConnectionEvent::Message(message)).await.map(|()| None)
    }

    /// Shows that the participant is there. It must send this or a message at least every 3.5 s,
    /// or it is away.
    ///
    /// # Errors
    /// [`RoomsClosed`]
    pub(super) async fn keep_alive(&self) -> Result<(), RoomsClosed> {
        self.send_event(ConnectionEvent::KeepAlive).await
    }

    /// Ends the connection, after the messages before.
    pub(super) async fn close(&self) {
        // The rooms ignore it if they have closed the connection already, or never knew it.
        let _ = self.send_event(ConnectionEvent::Closed).await;
    }

    async fn send_event(&self, event: ConnectionEvent) -> Result<(), RoomsClosed> {
        self.cx.events.send((self.id, event)).await.map_err(|_| RoomsClosed)
    }
}

/// The session that a message asks to open or join.
fn session_to_enter(message: &ClientMessage) -> Option<&SessionId> {
    match message {
        ClientMessage::Open { session, .. } | ClientMessage::Join { session, .. } => Some(session),
        ClientMessage::Hello { .. }
        | ClientMessage::Leave { .. }
        | ClientMessage::Close { .. }
        | ClientMessage::Eject { .. }
        | ClientMessage::Allow { .. }
        | ClientMessage::Lock { .. }
        | ClientMessage::Rename { .. }
        | ClientMessage::Signal { .. }
        | ClientMessage::Ping => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        sync::{Notify, watch},
        task::JoinHandle,
        time::{Duration, timeout},
    };

    use super::super::{
        outbox::{OutboxReceiver, outbox},
        rooms_actor::{RoomsActor, fresh_secret},
    };
    use super::*;
    use crate::{
        model::{HubMessage, Instance, Payload, SessionKind},
        signalling::rooms::Rooms,
    };

    /// A hub's rooms in a task.
    fn start_rooms() -> (HubCx, JoinHandle<()>, watch::Sender<crate::model::HubUrl>) {
        let base = watch::Sender::new("http://192.0.2.1:7340".parse().unwrap());
        let (actor, events) = RoomsActor::new(Rooms::new(fresh_secret), None, base.subscribe());
        let mut cx = HubCx::detached("http://192.0.2.1:7340", "machine");
        (cx.events, cx.queued_bytes) = (events, actor.queued_bytes());
        (cx, tokio::spawn(actor.run(Arc::new(Notify::new()))), base)
    }

    /// A participant that has no WebSocket.
    struct DirectParticipant<'a> {
        link: RoomsLink<'a>,
        id: ParticipantId,
        inbox: OutboxReceiver,
    }

    impl<'a> DirectParticipant<'a> {
        async fn enter(cx: &'a HubCx, number: u8) -> Self {
            let connection = ConnectionId(u64::from(number));
            let link = RoomsLink { id: connection, source: [127, 0, 0, 1].into(), cx };
            let (outbox, inbox) = outbox(&cx.queued_bytes);
            let id = ParticipantId::from_digest([number; 10]);
            let hello = RoomsInput::Hello {
                connection,
                participant: id.clone(),
                token: fresh_secret(),
                name: format!("P{number}"),
                instance: Instance::from_random(u64::from(number)),
                link_base: String::new(),
                source: None,
                is_own: false,
            };
            link.hello(outbox, hello).await.unwrap();
            let mut participant = Self { link, id, inbox };
            assert!(matches!(participant.recv().await, HubMessage::Welcome { .. }));
            participant
        }

        async fn send(&self, message: ClientMessage) {
            assert_eq!(self.link.send(message).await.unwrap(), None);
        }

        async fn recv(&mut self) -> HubMessage {
            let received = timeout(Duration::from_secs(10), self.inbox.recv()).await;
            let message = received.expect("a message comes").expect("the outbox is open");
            assert!(!message.has_text(), "it was a value all the way");
            message.message().clone()
        }
    }

    #[tokio::test]
    async fn participants_without_a_websocket_meet_signal_and_leave() {
        let (cx, _rooms, _base) = start_rooms();
        let mut opener = DirectParticipant::enter(&cx, 1).await;
        let mut guest = DirectParticipant::enter(&cx, 2).await;
        let session = SessionId::parse("a").unwrap();
        let (kind, limit, owner_key) = (SessionKind::FIVE[0], None, None);
        let open = ClientMessage::Open { session: session.clone(), kind, limit, owner_key };
        opener.send(open).await;
        assert!(matches!(opener.recv().await, HubMessage::Opened { .. }));
        guest.send(ClientMessage::Join { session: session.clone(), wait: false }).await;
        assert!(matches!(guest.recv().await, HubMessage::Joined { .. }));
        assert!(matches!(opener.recv().await, HubMessage::ParticipantJoined { .. }));
        let payload = Payload::Offer { generation: 1, sdp: "m=audio".into() };
        let (to, from) = (guest.id.clone(), opener.id.clone());
        let signal = payload.clone().into();
        opener.send(ClientMessage::Signal { session: session.clone(), to, payload: signal }).await;
        let payload = payload.into();
        assert_eq!(guest.recv().await, HubMessage::Signal { session, from, payload });
        guest.link.keep_alive().await.unwrap();
        guest.link.close().await;
        assert!(matches!(opener.recv().await, HubMessage::ParticipantPresence { .. }));
        assert!(guest.inbox.recv().await.is_none(), "the rooms have dropped its outbox");
    }

    #[tokio::test]
    async fn a_message_to_several_becomes_text_once() {
        let (cx, _rooms, _base) = start_rooms();
        let mut members = vec![];
        let session = SessionId::parse("a").unwrap();
        for number in 1..=3 {
            let mut member = DirectParticipant::enter(&cx, number).await;
            let session = session.clone();
            let (kind, limit, owner_key) = (SessionKind::FIVE[0], None, None);
            member
                .send(match number {
                    1 => ClientMessage::Open { session, kind, limit, owner_key },
                    _ => ClientMessage::Join { session, wait: false },
                })
                .await;
            member.recv().await;
            members.push(member);
        }
        // The second and the third member have joined after the first one.
        assert!(matches!(members[0].recv().await, HubMessage::ParticipantJoined { .. }));
        let joined = [members[0].inbox.recv().await, members[1].inbox.recv().await];
        let [first, second] = joined.map(|message| message.unwrap().text());
        assert_eq!(first.as_ptr(), second.as_ptr(), "{first} {second}");
    }

    #[tokio::test]
    async fn an_address_that_asks_too_often_about_sessions_is_told_to_wait() {
        let (cx, _rooms, _base) = start_rooms();
        let session = SessionId::parse("a").unwrap();
        let source = [192, 0, 2, 1].into();
        let mut refused = false;
        for number in 0..1000 {
            // Each on a connection of its own.
            let link = RoomsLink { id: ConnectionId(number), source, cx: &cx };
            refused |= link.about(session.clone()).await.unwrap().is_err();
        }
        assert!(refused);
        let link = RoomsLink { id: ConnectionId(1000), source: [192, 0, 2, 2].into(), cx: &cx };
        assert!(link.about(session).await.unwrap().is_ok_and(|about| !about.open));
    }
}
