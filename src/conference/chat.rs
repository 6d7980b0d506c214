//! The chat with one participant: unacknowledged texts, and detection of duplicates.

use std::collections::VecDeque;

use super::outbox::{Effect, Outbox};
use crate::model::{ChatMessage, ChatText, PeerCommand, PeerId};

/// The texts that were sent to one participant and not acknowledged yet, in order.
///
/// Each text is kept until the remote peer acknowledges it. If the connection breaks first, the
/// text is sent again on the next connection. No text is sent on a connection before a message of
/// the remote peer arrives on it. The number of a text tells the receiver whether it is a
/// duplicate. So each text is read once and in order, however many connections break.
#[derive(Debug, Default)]
pub(super) struct Chat {
    kept: VecDeque<(u64, ChatText)>,
    /// How many of these texts, from the oldest on, were sent on the open connection.
    written: usize,
    /// The connection whose data channel is open here.
    channel: Option<PeerId>,
    /// Whether a message of the remote peer arrived on it, so that the channel is open there as
    /// well. webrtc-rs drops messages that arrive earlier, although SCTP has acknowledged them.
    is_met: bool,
    /// The number of the newest text that arrived.
    heard: u64,
}

/// The most texts that are kept for one participant: for one that is away for a minute, everything
/// that a lively conversation produces.
pub(super) const KEPT: usize = 64;

/// The most texts that are sent before the first of them is acknowledged. A peer connection takes
/// more commands than these at once, and the remote peer reads more messages than these at once.
const WINDOW: usize = 16;

impl Chat {
    /// Sends a text. If too many texts are unacknowledged, drops the oldest and returns `false`.
    pub(super) fn say(&mut self, number: u64, text: ChatText, effects: &mut Outbox) -> bool {
        self.kept.push_back((number, text));
        let fits = self.kept.len() <= KEPT;
        if !fits {
            self.kept.pop_front();
            self.written = self.written.saturating_sub(1);
        }
        self.write(effects);
        fits
    }

    /// The data channel of a connection is open here. Unacknowledged texts are sent again once the
    /// first message of the remote peer arrives.
    pub(super) fn open(&mut self, on: PeerId, effects: &mut Outbox) {
        self.close();
        self.channel = Some(on);
        self.answer(effects);
    }

    /// The connection is closed.
    pub(super) fn close(&mut self) {
        self.channel = None;
        self.is_met = false;
        self.written = 0;
    }

    /// Handles a message of the remote peer. Returns its text, unless it is a duplicate.
    ///
    /// The first message is always acknowledged: the acknowledgement that was sent when the channel
    /// opened here may have arrived before the remote peer was ready.
    pub(super) fn read(&mut self, message: ChatMessage, effects: &mut Outbox) -> Option<ChatText> {
        if !std::mem::replace(&mut self.is_met, true) {
            self.answer(effects);
        }
        let text = self.take(message, effects);
        self.write(effects);
        text
    }

    fn take(&mut self, message: ChatMessage, effects: &mut Outbox) -> Option<ChatText> {
        match message {
            ChatMessage::Text { number, text } => {
                let is_new = number > self.heard;
                self.heard = self.heard.max(number);
                self.answer(effects);
                is_new.then_some(text)
            }
            ChatMessage::Received { number } => {
                while self.kept.front().is_some_and(|one| one.0 <= number) {
                    self.kept.pop_front();
                    self.written = self.written.saturating_sub(1);
                }
                None
            }
            ChatMessage::Unknown => None,
        }
    }

    /// The remote peer's program was started again: its numbers start anew.
    pub(super) fn forget(&mut self) {
        self.heard = 0;
    }

    /// Drops all unacknowledged texts and returns how many there were.
    pub(super) fn give_up(&mut self) -> usize {
        self.written = 0;
        std::mem::take(&mut self.kept).len()
    }

    fn write(&mut self, effects: &mut Outbox) {
        let Some(peer) = self.channel.filter(|_| self.is_met) else { return };
        while self.written < WINDOW
            && let Some((number, text)) = self.kept.get(self.written)
        {
            let message = ChatMessage::Text { number: *number, text: text.clone() };
            effects.push(Effect::Peer { peer, command: PeerCommand::Write(message) });
            self.written += 1;
        }
    }

    fn answer(&self, effects: &mut Outbox) {
        let Some(peer) = self.channel else { return };
        let message = ChatMessage::Received { number: self.heard };
        effects.push(Effect::Peer { peer, command: PeerCommand::Write(message) });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Input, tests::fixture::*};
    use super::*;
    use crate::model::{
        Command, Event, FailureCode, Instance, LeaveReason, MediaSet, Member, PeerEvent, PeerState,
        Presence, Role, SessionKind, Topology,
    };

    fn kind(topology: Topology) -> SessionKind {
        SessionKind { media: MediaSet::DATA, topology }
    }

    fn text(text: &str) -> ChatText {
        ChatText::new(text).unwrap()
    }

    fn say(fixture: &mut Stage, words: &str) {
        fixture.give(Input::Command(Command::Say { session: session(), text: text(words) }));
    }

    /// The opener with `a` connected on peer connection 1, whose data channel is open.
    fn with_a(topology: Topology) -> Stage {
        let mut fixture = Stage::opened(kind(topology));
        fixture.hear(came(member("a"))).state(1, PeerState::Connected);
        meet(&mut fixture, 1);
        fixture
    }

    /// Opens the data channel of a connection at both ends.
    fn meet(fixture: &mut Stage, peer: u64) {
        fixture.tell(peer, PeerEvent::Writable);
        received(fixture, peer, 0);
    }

    /// The texts that were sent: connection, number, text.
    fn written(fixture: &Stage) -> Vec<(u64, u64, String)> {
        let written = fixture.done.iter().filter_map(|effect| {
            let Effect::Peer { peer, command: PeerCommand::Write(message) } = effect else {
                return None;
            };
            let ChatMessage::Text { number, text } = message else { return None };
            Some((peer.0, *number, text.as_str().to_owned()))
        });
        written.collect()
    }

    fn words(fixture: &Stage) -> Vec<(u64, String)> {
        written(fixture).into_iter().map(|(peer, _, text)| (peer, text)).collect()
    }

    fn received(fixture: &mut Stage, peer: u64, number: u64) {
        fixture.tell(peer, PeerEvent::Read(ChatMessage::Received { number }));
    }

    fn arrives(fixture: &mut Stage, peer: u64, (number, words): (u64, &str)) -> Vec<String> {
        fixture.tell(peer, PeerEvent::Read(ChatMessage::Text { number, text: text(words) }));
        let announced = fixture.events().into_iter().filter_map(|event| {
            let Event::Message { name, text, .. } = event else { return None };
            Some(format!("{name}: {}", text.as_str()))
        });
        announced.collect()
    }

    fn undelivered(fixture: &Stage) -> Vec<usize> {
        let counts = fixture.events().into_iter().filter_map(|event| {
            if let Event::Undelivered { count, .. } = event { Some(*count) } else { None }
        });
        counts.collect()
    }

    #[test]
    fn a_text_is_sent_to_each_participant_once_and_announced() {
        let mut fixture = with_a(Topology::ManyToMany);
        fixture.hear(came(member("b")));
        meet(&mut fixture, 2);
        say(&mut fixture, "hello");
        assert_eq!(words(&fixture), [(1, "hello".into()), (2, "hello".into())]);
        let sent = Event::Said { session: session(), text: text("hello") };
        assert_eq!(fixture.events(), [&sent]);
        fixture.state(2, PeerState::Connected);
        assert_eq!(words(&fixture), [], "nothing is sent twice");
    }

    #[test]
    fn only_unacknowledged_texts_are_sent_again_on_the_next_connection() {
        let mut fixture = with_a(Topology::ManyToMany);
        say(&mut fixture, "one");
        let one = written(&fixture)[0].1;
        say(&mut fixture, "two");
        received(&mut fixture, 1, one);
        fixture.state(1, PeerState::Failed);
        say(&mut fixture, "three");
        assert_eq!(words(&fixture), [], "there is no connection");
        fixture.pass_ms(1000);
        meet(&mut fixture, 2);
        assert_eq!(words(&fixture), [(2, "two".into()), (2, "three".into())]);
        let numbers: Vec<_> = written(&fixture).iter().map(|(_, number, _)| *number).collect();
        assert!(one < numbers[0] && numbers[0] < numbers[1]);
    }

    #[test]
    fn a_duplicate_text_is_announced_once_and_acknowledged_each_time() {
        let mut fixture = with_a(Topology::ManyToMany);
        assert_eq!(arrives(&mut fixture, 1, (7, "hi")), ["A: hi"]);
        let answer = PeerCommand::Write(ChatMessage::Received { number: 7 });
        assert_eq!(fixture.commands(), [&answer]);
        fixture.state(1, PeerState::Failed).pass_ms(1000);
        meet(&mut fixture, 2);
        assert_eq!(arrives(&mut fixture, 2, (7, "hi")), Vec::<String>::new());
        assert_eq!(fixture.commands(), [&answer]);
        assert_eq!(arrives(&mut fixture, 2, (8, "again")), ["A: again"]);
        assert_eq!(arrives(&mut fixture, 1, (9, "late")), Vec::<String>::new(), "it is closed");
    }

    #[test]
    fn a_restarted_program_is_read_from_its_first_text_on() {
        let mut fixture = with_a(Topology::ManyToMany);
        arrives(&mut fixture, 1, (1000, "before"));
        let restarted = Member { instance: Instance::from_random(9), ..member("a") };
        fixture.hear(came(restarted));
        meet(&mut fixture, 2);
        assert_eq!(arrives(&mut fixture, 2, (1, "after")), ["A: after"]);
    }

    #[test]
    fn a_late_joiner_gets_no_earlier_texts() {
        let mut fixture = with_a(Topology::ManyToMany);
        say(&mut fixture, "early");
        fixture.hear(came(member("b")));
        meet(&mut fixture, 2);
        assert_eq!(words(&fixture), []);
    }

    #[test]
    fn texts_reach_a_participant_that_was_away_and_are_reported_lost_for_one_that_left() {
        let mut fixture = with_a(Topology::ManyToMany);
        fixture.hear(presence("a", away(0))).state(1, PeerState::Disconnected).pass_ms(20_000);
        assert_eq!(fixture.closed_peers(), [1]);
        say(&mut fixture, "are you there?");
        assert_eq!((words(&fixture), undelivered(&fixture)), (vec![], vec![]));
        fixture.hear(presence("a", Presence::Here));
        meet(&mut fixture, 2);
        assert_eq!(words(&fixture), [(2, "are you there?".into())]);
        fixture.hear(left("a", LeaveReason::Left));
        assert_eq!(undelivered(&fixture), [1], "it was not acknowledged");
        say(&mut fixture, "anybody?");
        assert_eq!(fixture.failures()[0].code, FailureCode::Chat);
    }

    #[test]
    fn texts_in_flight_are_limited_and_texts_beyond_the_buffer_are_reported_lost() {
        let mut fixture = with_a(Topology::ManyToMany);
        let mut numbers = vec![];
        for index in 0..KEPT {
            say(&mut fixture, &format!("{index}"));
            numbers.extend(written(&fixture).iter().map(|(_, number, _)| *number));
        }
        assert_eq!((numbers.len(), undelivered(&fixture)), (WINDOW, vec![]));
        received(&mut fixture, 1, numbers[1]);
        assert_eq!(words(&fixture), [(1, "16".into()), (1, "17".into())]);
        received(&mut fixture, 1, u64::MAX);
        assert_eq!(words(&fixture), [], "it acknowledged them all");
        for index in 0..KEPT {
            say(&mut fixture, &format!("{index}"));
            assert_eq!(undelivered(&fixture), Vec::<usize>::new());
        }
        say(&mut fixture, "one more");
        assert_eq!(undelivered(&fixture), [1]);
    }

    #[test]
    fn no_text_is_sent_before_the_first_message_of_the_remote_peer() {
        let mut fixture = Stage::opened(kind(Topology::ManyToMany));
        fixture.hear(came(member("a"))).state(1, PeerState::Connected);
        say(&mut fixture, "hello");
        fixture.tell(1, PeerEvent::Writable);
        let answer = PeerCommand::Write(ChatMessage::Received { number: 0 });
        assert_eq!(fixture.commands(), [&answer]);
        say(&mut fixture, "anybody?");
        assert_eq!(words(&fixture), []);
        received(&mut fixture, 1, 0);
        assert_eq!(
            fixture.commands()[0],
            &answer,
            "the first acknowledgement may have come too early"
        );
        assert_eq!(words(&fixture), [(1, "hello".into()), (1, "anybody?".into())]);
        received(&mut fixture, 1, 0);
        assert_eq!(fixture.done, [], "nothing else is sent");
    }

    #[test]
    fn a_text_acknowledged_on_the_next_connection_is_not_sent_again() {
        let mut fixture = with_a(Topology::ManyToMany);
        say(&mut fixture, "one");
        let one = written(&fixture)[0].1;
        say(&mut fixture, "two");
        fixture.state(1, PeerState::Failed).pass_ms(1000).tell(2, PeerEvent::Writable);
        received(&mut fixture, 2, one);
        assert_eq!(words(&fixture), [(2, "two".into())]);
    }

    #[test]
    fn a_viewer_cannot_write_and_its_texts_are_ignored() {
        let mut fixture = with_a(Topology::OneWay);
        assert_eq!(arrives(&mut fixture, 1, (1, "psst")), Vec::<String>::new());
        let opener = Member { role: Role::Opener, ..member("o") };
        let mut fixture = Stage::joined(kind(Topology::OneWay), vec![opener]);
        fixture.hear(word("o", offer(1)));
        meet(&mut fixture, 1);
        assert_eq!(arrives(&mut fixture, 1, (1, "welcome")), ["O: welcome"]);
        say(&mut fixture, "hello");
        assert_eq!((words(&fixture), fixture.failures()[0].code), (vec![], FailureCode::Chat));
        assert!(fixture.failures()[0].message.contains("only the host"));
    }

    #[test]
    fn a_text_that_cannot_be_sent_is_refused_with_the_reason() {
        let refused = |fixture: &mut Stage| {
            say(fixture, "hello");
            assert_eq!(words(fixture), []);
            fixture.failures()[0].message.clone()
        };
        let mut fixture = Stage::opened(MESH);
        assert!(refused(&mut fixture).contains("audio+video+data/many-to-many"));
        let mut fixture = Stage::opened(kind(Topology::OneToOne));
        assert!(refused(&mut fixture).contains("nobody is in session"));
        fixture.leave();
        assert!(refused(&mut fixture).contains("you are not in session"));
        fixture.join(None, true);
        assert!(refused(&mut fixture).contains("is not open"));
    }

    #[test]
    fn texts_after_leaving_and_rejoining_are_not_duplicates() {
        let mut fixture = with_a(Topology::ManyToMany);
        say(&mut fixture, "before");
        let before = written(&fixture)[0].1;
        fixture.leave().pass(Duration::from_micros(1)).open(kind(Topology::ManyToMany));
        fixture.hear(opened(kind(Topology::ManyToMany), vec![member("a")]));
        fixture.hear(word("a", offer(1)));
        meet(&mut fixture, 2);
        say(&mut fixture, "after");
        assert!(written(&fixture)[0].1 > before);
    }
}
