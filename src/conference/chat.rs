//! The chat with one participant: unacknowledged texts, and detection of duplicates.

use std::collections::VecDeque;

use super::effects::{Effect, EffectQueue};
use crate::model::{ChatMessage, ChatText, PeerCommand, PeerId};

/// The texts that were sent to one participant and not acknowledged yet, in order.
///
/// Each text is kept until the remote peer acknowledges it. If the connection breaks first, the
/// text is sent again on the next connection. No text is sent on a connection before a message of
/// the remote peer arrives on it. The number of a text tells the receiver whether it is a
/// duplicate. So each text is read once and in order, however many connections break.
#[derive(Debug, Default)]
pub(super) struct Chat {
    unacknowledged: VecDeque<(u64, ChatText)>,
    /// How many of these texts, from the oldest on, were sent on the open connection.
    in_flight: usize,
    /// The connection whose data channel is open here.
    channel: Option<PeerId>,
    /// Whether a message of the remote peer arrived on it, so that the channel is open there as
    /// well. webrtc-rs drops messages that arrive earlier, although SCTP has acknowledged them.
    peer_is_open: bool,
    /// The number of the newest text that arrived.
    last_received: u64,
}

/// The most texts that are kept for one participant: for one that is away for a minute, everything
/// that a lively conversation produces.
pub(super) const MAX_UNACKNOWLEDGED: usize = 64;

/// The most texts that are sent before the first of them is acknowledged. A peer connection takes
/// more commands than these at once, and the remote peer reads more messages than these at once.
const WINDOW: usize = 16;

impl Chat {
    /// Sends a text. If too many texts are unacknowledged, drops the oldest and returns `false`.
    pub(super) fn send(&mut self, number: u64, text: ChatText, effects: &mut EffectQueue) -> bool {
        self.unacknowledged.push_back((number, text));
        let fits = self.unacknowledged.len() <= MAX_UNACKNOWLEDGED;
        if !fits {
            self.unacknowledged.pop_front();
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        self.fill_window(effects);
        fits
    }

    /// The data channel of a connection is open here. Unacknowledged texts are sent again once the
    /// first message of the remote peer arrives.
    pub(super) fn on_channel_open(&mut self, on: PeerId, effects: &mut EffectQueue) {
        self.on_closed();
        self.channel = Some(on);
        self.acknowledge(effects);
    }

    /// The connection is closed.
    pub(super) fn on_closed(&mut self) {
        self.channel = None;
        self.peer_is_open = false;
        self.in_flight = 0;
    }

    /// Handles a message of the remote peer. Returns its text, unless it is a duplicate.
    ///
    /// The first message is always acknowledged: the acknowledgement that was sent when the channel
    /// opened here may have arrived before the remote peer was ready.
    pub(super) fn handle_message(
        &mut self,
        message: ChatMessage,
        effects: &mut EffectQueue,
    ) -> Option<ChatText> {
        if !std::mem::replace(&mut self.peer_is_open, true) {
            self.acknowledge(effects);
        }
        let text = self.apply(message, effects);
        self.fill_window(effects);
        text
    }

    fn apply(&mut self, message: ChatMessage, effects: &mut EffectQueue) -> Option<ChatText> {
        match message {
            ChatMessage::Text { number, text } => {
                let is_new = number > self.last_received;
                self.last_received = self.last_received.max(number);
                self.acknowledge(effects);
                is_new.then_some(text)
            }
            ChatMessage::Received { number } => {
                while self.unacknowledged.front().is_some_and(|one| one.0 <= number) {
                    self.unacknowledged.pop_front();
                    self.in_flight = self.in_flight.saturating_sub(1);
                }
                None
            }
            ChatMessage::Unknown => None,
        }
    }

    /// The remote peer's program was started again: its numbers start anew.
    pub(super) fn reset_received(&mut self) {
        self.last_received = 0;
    }

    /// Drops all unacknowledged texts and returns how many there were.
    pub(super) fn drop_unacknowledged(&mut self) -> usize {
        self.in_flight = 0;
        std::mem::take(&mut self.unacknowledged).len()
    }

    fn fill_window(&mut self, effects: &mut EffectQueue) {
        let Some(peer) = self.channel.filter(|_| self.peer_is_open) else { return };
        while self.in_flight < WINDOW
            && let Some((number, text)) = self.unacknowledged.get(self.in_flight)
        {
            let message = ChatMessage::Text { number: *number, text: text.clone() };
            effects.push(Effect::Peer { peer, command: PeerCommand::SendChannelMessage(message) });
            self.in_flight += 1;
        }
    }

    fn acknowledge(&self, effects: &mut EffectQueue) {
        let Some(peer) = self.channel else { return };
        let message = ChatMessage::Received { number: self.last_received };
        effects.push(Effect::Peer { peer, command: PeerCommand::SendChannelMessage(message) });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Input, tests::fixture::*};
    use super::*;
    use crate::model::{
        ChatFailure, Command, DataChannelKind, Event, FailureCode, Instance, LeaveReason, MediaSet,
        Member, PeerEvent, PeerState, Presence, Role, SessionFailure, SessionKind, Topology,
    };

    fn kind(topology: Topology) -> SessionKind {
        SessionKind { media: MediaSet::DATA, topology }
    }

    fn text(text: &str) -> ChatText {
        ChatText::new(text).unwrap()
    }

    fn send_text(fixture: &mut Fixture, words: &str) {
        fixture
            .handle(Input::Command(Command::SendMessage { session: session(), text: text(words) }));
    }

    /// The opener with `a` connected on peer connection 1, whose data channel is open.
    fn with_a(topology: Topology) -> Fixture {
        let mut fixture = Fixture::opened(kind(topology));
        fixture.receive(participant_joined(member("a"))).peer_state(1, PeerState::Connected);
        open_channel(&mut fixture, 1);
        fixture
    }

    /// Opens the data channel of a connection at both ends.
    fn open_channel(fixture: &mut Fixture, peer: u64) {
        fixture.peer_event(peer, PeerEvent::ChannelOpen(DataChannelKind::Chat));
        acknowledge(fixture, peer, 0);
    }

    /// The texts that were sent: connection, number, text.
    fn texts_sent(fixture: &Fixture) -> Vec<(u64, u64, String)> {
        let written = fixture.effects.iter().filter_map(|effect| {
            let Effect::Peer { peer, command: PeerCommand::SendChannelMessage(message) } = effect
            else {
                return None;
            };
            let ChatMessage::Text { number, text } = message else { return None };
            Some((peer.0, *number, text.as_str().to_owned()))
        });
        written.collect()
    }

    fn texts_by_peer(fixture: &Fixture) -> Vec<(u64, String)> {
        texts_sent(fixture).into_iter().map(|(peer, _, text)| (peer, text)).collect()
    }

    fn acknowledge(fixture: &mut Fixture, peer: u64, number: u64) {
        fixture.peer_event(peer, PeerEvent::ChannelMessage(ChatMessage::Received { number }));
    }

    fn receive_text(fixture: &mut Fixture, peer: u64, (number, words): (u64, &str)) -> Vec<String> {
        fixture.peer_event(
            peer,
            PeerEvent::ChannelMessage(ChatMessage::Text { number, text: text(words) }),
        );
        let announced = fixture.events().into_iter().filter_map(|event| {
            let Event::MessageReceived { name, text, .. } = event else { return None };
            Some(format!("{name}: {}", text.as_str()))
        });
        announced.collect()
    }

    fn undelivered(fixture: &Fixture) -> Vec<usize> {
        let counts = fixture.events().into_iter().filter_map(|event| {
            if let Event::Undelivered { count, .. } = event { Some(*count) } else { None }
        });
        counts.collect()
    }

    #[test]
    fn a_text_is_sent_to_each_participant_once_and_announced() {
        let mut fixture = with_a(Topology::ManyToMany);
        fixture.receive(participant_joined(member("b")));
        open_channel(&mut fixture, 2);
        send_text(&mut fixture, "hello");
        assert_eq!(texts_by_peer(&fixture), [(1, "hello".into()), (2, "hello".into())]);
        let sent = Event::MessageSent { session: session(), text: text("hello") };
        assert_eq!(fixture.events(), [&sent]);
        fixture.peer_state(2, PeerState::Connected);
        assert_eq!(texts_by_peer(&fixture), [], "nothing is sent twice");
    }

    #[test]
    fn only_unacknowledged_texts_are_sent_again_on_the_next_connection() {
        let mut fixture = with_a(Topology::ManyToMany);
        send_text(&mut fixture, "one");
        let one = texts_sent(&fixture)[0].1;
        send_text(&mut fixture, "two");
        acknowledge(&mut fixture, 1, one);
        fixture.peer_state(1, PeerState::Failed);
        send_text(&mut fixture, "three");
        assert_eq!(texts_by_peer(&fixture), [], "there is no connection");
        fixture.advance_ms(1000);
        open_channel(&mut fixture, 2);
        assert_eq!(texts_by_peer(&fixture), [(2, "two".into()), (2, "three".into())]);
        let numbers: Vec<_> = texts_sent(&fixture).iter().map(|(_, number, _)| *number).collect();
        assert!(one < numbers[0] && numbers[0] < numbers[1]);
    }

    #[test]
    fn a_duplicate_text_is_announced_once_and_acknowledged_each_time() {
        let mut fixture = with_a(Topology::ManyToMany);
        assert_eq!(receive_text(&mut fixture, 1, (7, "hi")), ["A: hi"]);
        let answer = PeerCommand::SendChannelMessage(ChatMessage::Received { number: 7 });
        assert_eq!(fixture.commands(), [&answer]);
        fixture.peer_state(1, PeerState::Failed).advance_ms(1000);
        open_channel(&mut fixture, 2);
        assert_eq!(receive_text(&mut fixture, 2, (7, "hi")), Vec::<String>::new());
        assert_eq!(fixture.commands(), [&answer]);
        assert_eq!(receive_text(&mut fixture, 2, (8, "again")), ["A: again"]);
        assert_eq!(
            receive_text(&mut fixture, 1, (9, "late")),
            Vec::<String>::new(),
            "it is closed"
        );
    }

    #[test]
    fn a_restarted_program_is_read_from_its_first_text_on() {
        let mut fixture = with_a(Topology::ManyToMany);
        receive_text(&mut fixture, 1, (1000, "before"));
        let restarted = Member { instance: Instance::from_random(9), ..member("a") };
        fixture.receive(participant_joined(restarted));
        open_channel(&mut fixture, 2);
        assert_eq!(receive_text(&mut fixture, 2, (1, "after")), ["A: after"]);
    }

    #[test]
    fn a_late_joiner_gets_no_earlier_texts() {
        let mut fixture = with_a(Topology::ManyToMany);
        send_text(&mut fixture, "early");
        fixture.receive(participant_joined(member("b")));
        open_channel(&mut fixture, 2);
        assert_eq!(texts_by_peer(&fixture), []);
    }

    #[test]
    fn texts_reach_a_participant_that_was_away_and_are_reported_lost_for_one_that_left() {
        let mut fixture = with_a(Topology::ManyToMany);
        fixture
            .receive(presence("a", away(0)))
            .peer_state(1, PeerState::Disconnected)
            .advance_ms(20_000);
        assert_eq!(fixture.closed_peers(), [1]);
        send_text(&mut fixture, "are you there?");
        assert_eq!((texts_by_peer(&fixture), undelivered(&fixture)), (vec![], vec![]));
        fixture.receive(presence("a", Presence::Here));
        open_channel(&mut fixture, 2);
        assert_eq!(texts_by_peer(&fixture), [(2, "are you there?".into())]);
        fixture.receive(participant_left("a", LeaveReason::Left));
        assert_eq!(undelivered(&fixture), [1], "it was not acknowledged");
        send_text(&mut fixture, "anybody?");
        assert_eq!(fixture.failures()[0].code(), FailureCode::Chat);
    }

    #[test]
    fn texts_in_flight_are_limited_and_texts_beyond_the_buffer_are_reported_lost() {
        let mut fixture = with_a(Topology::ManyToMany);
        let mut numbers = vec![];
        for index in 0..MAX_UNACKNOWLEDGED {
            send_text(&mut fixture, &format!("{index}"));
            numbers.extend(texts_sent(&fixture).iter().map(|(_, number, _)| *number));
        }
        assert_eq!((numbers.len(), undelivered(&fixture)), (WINDOW, vec![]));
        acknowledge(&mut fixture, 1, numbers[1]);
        assert_eq!(texts_by_peer(&fixture), [(1, "16".into()), (1, "17".into())]);
        acknowledge(&mut fixture, 1, u64::MAX);
        assert_eq!(texts_by_peer(&fixture), [], "it acknowledged them all");
        for index in 0..MAX_UNACKNOWLEDGED {
            send_text(&mut fixture, &format!("{index}"));
            assert_eq!(undelivered(&fixture), Vec::<usize>::new());
        }
        send_text(&mut fixture, "one more");
        assert_eq!(undelivered(&fixture), [1]);
    }

    #[test]
    fn no_text_is_sent_before_the_first_message_of_the_remote_peer() {
        let mut fixture = Fixture::opened(kind(Topology::ManyToMany));
        fixture.receive(participant_joined(member("a"))).peer_state(1, PeerState::Connected);
        send_text(&mut fixture, "hello");
        fixture.peer_event(1, PeerEvent::ChannelOpen(DataChannelKind::Chat));
        let answer = PeerCommand::SendChannelMessage(ChatMessage::Received { number: 0 });
        assert_eq!(fixture.commands(), [&answer]);
        send_text(&mut fixture, "anybody?");
        assert_eq!(texts_by_peer(&fixture), []);
        acknowledge(&mut fixture, 1, 0);
        assert_eq!(
            fixture.commands()[0],
            &answer,
            "the first acknowledgement may have come too early"
        );
        assert_eq!(texts_by_peer(&fixture), [(1, "hello".into()), (1, "anybody?".into())]);
        acknowledge(&mut fixture, 1, 0);
        assert_eq!(fixture.effects, [], "nothing else is sent");
    }

    #[test]
    fn a_text_acknowledged_on_the_next_connection_is_not_sent_again() {
        let mut fixture = with_a(Topology::ManyToMany);
        send_text(&mut fixture, "one");
        let one = texts_sent(&fixture)[0].1;
        send_text(&mut fixture, "two");
        fixture
            .peer_state(1, PeerState::Failed)
            .advance_ms(1000)
            .peer_event(2, PeerEvent::ChannelOpen(DataChannelKind::Chat));
        acknowledge(&mut fixture, 2, one);
        assert_eq!(texts_by_peer(&fixture), [(2, "two".into())]);
    }

    #[test]
    fn a_viewer_cannot_write_and_its_texts_are_ignored() {
        let mut fixture = with_a(Topology::OneWay);
        assert_eq!(receive_text(&mut fixture, 1, (1, "psst")), Vec::<String>::new());
        let opener = Member { role: Role::Opener, ..member("o") };
        let mut fixture = Fixture::joined(kind(Topology::OneWay), vec![opener]);
        fixture.receive(signal("o", offer(1)));
        open_channel(&mut fixture, 1);
        assert_eq!(receive_text(&mut fixture, 1, (1, "welcome")), ["O: welcome"]);
        send_text(&mut fixture, "hello");
        assert_eq!(
            (texts_by_peer(&fixture), fixture.failures()[0].code()),
            (vec![], FailureCode::Chat)
        );
        assert_eq!(fixture.failures(), [&ChatFailure::GuestsCannotWrite.of(&session())]);
    }

    #[test]
    fn a_text_that_cannot_be_sent_is_refused_with_the_reason() {
        let refused = |fixture: &mut Fixture| {
            send_text(fixture, "hello");
            assert_eq!(texts_by_peer(fixture), []);
            fixture.failures()[0].clone()
        };
        let mut fixture = Fixture::opened(MESH);
        assert_eq!(refused(&mut fixture), ChatFailure::NoChat(MESH).of(&session()));
        let mut fixture = Fixture::opened(kind(Topology::OneToOne));
        assert_eq!(refused(&mut fixture), ChatFailure::NobodyToRead.of(&session()));
        fixture.leave();
        assert_eq!(refused(&mut fixture), SessionFailure::NotInSession.of(&session()));
        fixture.join(None, true);
        assert_eq!(refused(&mut fixture), ChatFailure::NotOpen.of(&session()));
    }

    #[test]
    fn texts_after_leaving_and_rejoining_are_not_duplicates() {
        let mut fixture = with_a(Topology::ManyToMany);
        send_text(&mut fixture, "before");
        let before = texts_sent(&fixture)[0].1;
        fixture.leave().advance(Duration::from_micros(1)).open(kind(Topology::ManyToMany));
        fixture.receive(opened(kind(Topology::ManyToMany), vec![member("a")]));
        fixture.receive(signal("a", offer(1)));
        open_channel(&mut fixture, 2);
        send_text(&mut fixture, "after");
        assert!(texts_sent(&fixture)[0].1 > before);
    }
}
