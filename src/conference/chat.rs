//! The chat with one participant: what is on its way, and what was heard already.

use std::collections::VecDeque;

use super::outbox::{Effect, Outbox};
use crate::model::{ChatMessage, ChatText, PeerCommand, PeerId};

/// What was said to one participant and not received yet, in order.
///
/// Each text is kept until the other end says that it has received it, and written again on the
/// next connection if that did not happen on this one. Nothing is written on a connection before
/// the other end is heard there. Its number tells the other end whether it
/// has read it before: so each is read once, and in order, however many connections break.
#[derive(Debug, Default)]
pub(super) struct Chat {
    kept: VecDeque<(u64, ChatText)>,
    /// How many of them, from the oldest on, were written on the connection that is open.
    written: usize,
    /// The connection whose channel is open here.
    channel: Option<PeerId>,
    /// Whether the other end was heard on it, so that it is open there as well. The library drops
    /// what arrives before, and yet tells SCTP that it has arrived.
    is_met: bool,
    /// The number of the newest text that was heard.
    heard: u64,
}

/// Texts that are kept for one participant: of someone who is away for a minute, all that a
/// lively conversation said meanwhile.
pub(super) const KEPT: usize = 64;

/// Texts that are written before the first of them is received. A connection takes more commands
/// than these at a time, and the other end reads more than these at once.
const WINDOW: usize = 16;

impl Chat {
    /// Says something; the oldest text that is kept is given up if too much is: false then.
    pub(super) fn say(&mut self, number: u64, text: ChatText, out: &mut Outbox) -> bool {
        self.kept.push_back((number, text));
        let fits = self.kept.len() <= KEPT;
        if !fits {
            self.kept.pop_front();
            self.written = self.written.saturating_sub(1);
        }
        self.write(out);
        fits
    }

    /// A connection's channel is open here. Whatever was not received is written (again) when the
    /// other end is heard.
    pub(super) fn open(&mut self, on: PeerId, out: &mut Outbox) {
        self.close();
        self.channel = Some(on);
        self.answer(out);
    }

    /// The connection is closed.
    pub(super) fn close(&mut self) {
        self.channel = None;
        self.is_met = false;
        self.written = 0;
    }

    /// Takes what the other end wrote; returns what it says, unless that was heard before.
    ///
    /// The first thing that comes is answered always: what was said when the channel opened here
    /// may have come too early for the other end.
    pub(super) fn read(&mut self, message: ChatMessage, out: &mut Outbox) -> Option<ChatText> {
        if !std::mem::replace(&mut self.is_met, true) {
            self.answer(out);
        }
        let text = self.take(message, out);
        self.write(out);
        text
    }

    fn take(&mut self, message: ChatMessage, out: &mut Outbox) -> Option<ChatText> {
        match message {
            ChatMessage::Text { number, text } => {
                let is_new = number > self.heard;
                self.heard = self.heard.max(number);
                self.answer(out);
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

    /// The other end's program is another one: it counts anew.
    pub(super) fn forget(&mut self) {
        self.heard = 0;
    }

    /// How many texts were not received; they are given up.
    pub(super) fn give_up(&mut self) -> usize {
        self.written = 0;
        std::mem::take(&mut self.kept).len()
    }

    fn write(&mut self, out: &mut Outbox) {
        let Some(peer) = self.channel.filter(|_| self.is_met) else { return };
        while self.written < WINDOW
            && let Some((number, text)) = self.kept.get(self.written)
        {
            let message = ChatMessage::Text { number: *number, text: text.clone() };
            out.push(Effect::Peer { peer, command: PeerCommand::Write(message) });
            self.written += 1;
        }
    }

    fn answer(&self, out: &mut Outbox) {
        let Some(peer) = self.channel else { return };
        let message = ChatMessage::Received { number: self.heard };
        out.push(Effect::Peer { peer, command: PeerCommand::Write(message) });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Input, stage::*};
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

    fn say(stage: &mut Stage, said: &str) {
        stage.give(Input::Command(Command::Say { session: session(), text: text(said) }));
    }

    /// The opener with `a` there, on the connection 1, whose channel is open.
    fn with_a(topology: Topology) -> Stage {
        let mut stage = Stage::opened(kind(topology));
        stage.hear(came(member("a"))).state(1, PeerState::Connected);
        meet(&mut stage, 1);
        stage
    }

    /// The channel of a connection is open at both ends.
    fn meet(stage: &mut Stage, peer: u64) {
        stage.tell(peer, PeerEvent::Writable);
        received(stage, peer, 0);
    }

    /// What was written: on which connection, its number, and what was said.
    fn written(stage: &Stage) -> Vec<(u64, u64, String)> {
        let written = stage.done.iter().filter_map(|effect| {
            let Effect::Peer { peer, command: PeerCommand::Write(message) } = effect else {
                return None;
            };
            let ChatMessage::Text { number, text } = message else { return None };
            Some((peer.0, *number, text.as_str().to_owned()))
        });
        written.collect()
    }

    fn words(stage: &Stage) -> Vec<(u64, String)> {
        written(stage).into_iter().map(|(peer, _, text)| (peer, text)).collect()
    }

    fn received(stage: &mut Stage, peer: u64, number: u64) {
        stage.tell(peer, PeerEvent::Read(ChatMessage::Received { number }));
    }

    fn arrives(stage: &mut Stage, peer: u64, (number, said): (u64, &str)) -> Vec<String> {
        stage.tell(peer, PeerEvent::Read(ChatMessage::Text { number, text: text(said) }));
        let heard = stage.events().into_iter().filter_map(|event| {
            let Event::Message { name, text, .. } = event else { return None };
            Some(format!("{name}: {}", text.as_str()))
        });
        heard.collect()
    }

    fn undelivered(stage: &Stage) -> Vec<usize> {
        let counts = stage.events().into_iter().filter_map(|event| {
            if let Event::Undelivered { count, .. } = event { Some(*count) } else { None }
        });
        counts.collect()
    }

    #[test]
    fn what_is_said_goes_to_everybody_once_and_is_told_to_us() {
        let mut stage = with_a(Topology::ManyToMany);
        stage.hear(came(member("b")));
        meet(&mut stage, 2);
        say(&mut stage, "hello");
        assert_eq!(words(&stage), [(1, "hello".into()), (2, "hello".into())]);
        let said = Event::Said { session: session(), text: text("hello") };
        assert_eq!(stage.events(), [&said]);
        stage.state(2, PeerState::Connected);
        assert_eq!(words(&stage), [], "nothing is said twice");
    }

    #[test]
    fn what_was_not_received_is_said_again_on_the_next_connection_and_nothing_else() {
        let mut stage = with_a(Topology::ManyToMany);
        say(&mut stage, "one");
        let one = written(&stage)[0].1;
        say(&mut stage, "two");
        received(&mut stage, 1, one);
        stage.state(1, PeerState::Failed);
        say(&mut stage, "three");
        assert_eq!(words(&stage), [], "there is no connection");
        stage.pass_ms(1000);
        meet(&mut stage, 2);
        assert_eq!(words(&stage), [(2, "two".into()), (2, "three".into())]);
        let numbers: Vec<_> = written(&stage).iter().map(|(_, number, _)| *number).collect();
        assert!(one < numbers[0] && numbers[0] < numbers[1]);
    }

    #[test]
    fn a_text_that_comes_again_is_heard_once_and_answered_each_time() {
        let mut stage = with_a(Topology::ManyToMany);
        assert_eq!(arrives(&mut stage, 1, (7, "hi")), ["A: hi"]);
        let answer = PeerCommand::Write(ChatMessage::Received { number: 7 });
        assert_eq!(stage.commands(), [&answer]);
        stage.state(1, PeerState::Failed).pass_ms(1000);
        meet(&mut stage, 2);
        assert_eq!(arrives(&mut stage, 2, (7, "hi")), Vec::<String>::new());
        assert_eq!(stage.commands(), [&answer]);
        assert_eq!(arrives(&mut stage, 2, (8, "again")), ["A: again"]);
        assert_eq!(arrives(&mut stage, 1, (9, "late")), Vec::<String>::new(), "it is closed");
    }

    #[test]
    fn a_program_that_was_started_again_is_heard_from_its_first_word_on() {
        let mut stage = with_a(Topology::ManyToMany);
        arrives(&mut stage, 1, (1000, "before"));
        let reborn = Member { instance: Instance::from_random(9), ..member("a") };
        stage.hear(came(reborn));
        meet(&mut stage, 2);
        assert_eq!(arrives(&mut stage, 2, (1, "after")), ["A: after"]);
    }

    #[test]
    fn a_late_joiner_hears_nothing_of_what_was_said_before() {
        let mut stage = with_a(Topology::ManyToMany);
        say(&mut stage, "early");
        stage.hear(came(member("b")));
        meet(&mut stage, 2);
        assert_eq!(words(&stage), []);
    }

    #[test]
    fn whoever_is_away_gets_it_when_back_and_a_leaver_never_which_is_told() {
        let mut stage = with_a(Topology::ManyToMany);
        stage.hear(presence("a", away(0))).state(1, PeerState::Disconnected).pass_ms(20_000);
        assert_eq!(stage.closed_peers(), [1]);
        say(&mut stage, "are you there?");
        assert_eq!((words(&stage), undelivered(&stage)), (vec![], vec![]));
        stage.hear(presence("a", Presence::Here));
        meet(&mut stage, 2);
        assert_eq!(words(&stage), [(2, "are you there?".into())]);
        stage.hear(left("a", LeaveReason::Left));
        assert_eq!(undelivered(&stage), [1], "nobody said that it was received");
        say(&mut stage, "anybody?");
        assert_eq!(stage.failures()[0].code, FailureCode::Chat);
    }

    #[test]
    fn few_are_under_way_at_a_time_and_more_than_are_kept_are_told_as_lost() {
        let mut stage = with_a(Topology::ManyToMany);
        let mut numbers = vec![];
        for index in 0..KEPT {
            say(&mut stage, &format!("{index}"));
            numbers.extend(written(&stage).iter().map(|(_, number, _)| *number));
        }
        assert_eq!((numbers.len(), undelivered(&stage)), (WINDOW, vec![]));
        received(&mut stage, 1, numbers[1]);
        assert_eq!(words(&stage), [(1, "16".into()), (1, "17".into())]);
        received(&mut stage, 1, u64::MAX);
        assert_eq!(words(&stage), [], "it has them all, it says");
        for index in 0..KEPT {
            say(&mut stage, &format!("{index}"));
            assert_eq!(undelivered(&stage), Vec::<usize>::new());
        }
        say(&mut stage, "one more");
        assert_eq!(undelivered(&stage), [1]);
    }

    #[test]
    fn nothing_is_said_before_the_other_end_is_heard_on_the_connection() {
        let mut stage = Stage::opened(kind(Topology::ManyToMany));
        stage.hear(came(member("a"))).state(1, PeerState::Connected);
        say(&mut stage, "hello");
        stage.tell(1, PeerEvent::Writable);
        let answer = PeerCommand::Write(ChatMessage::Received { number: 0 });
        assert_eq!(stage.commands(), [&answer]);
        say(&mut stage, "anybody?");
        assert_eq!(words(&stage), []);
        received(&mut stage, 1, 0);
        assert_eq!(stage.commands()[0], &answer, "the first may have come too early");
        assert_eq!(words(&stage), [(1, "hello".into()), (1, "anybody?".into())]);
        received(&mut stage, 1, 0);
        assert_eq!(stage.done, [], "and that is all");
    }

    #[test]
    fn what_arrived_on_a_connection_that_died_before_it_said_so_is_not_said_again() {
        let mut stage = with_a(Topology::ManyToMany);
        say(&mut stage, "one");
        let one = written(&stage)[0].1;
        say(&mut stage, "two");
        stage.state(1, PeerState::Failed).pass_ms(1000).tell(2, PeerEvent::Writable);
        received(&mut stage, 2, one);
        assert_eq!(words(&stage), [(2, "two".into())]);
    }

    #[test]
    fn a_viewer_writes_nothing_and_is_not_heard() {
        let mut stage = with_a(Topology::OneWay);
        assert_eq!(arrives(&mut stage, 1, (1, "psst")), Vec::<String>::new());
        let opener = Member { role: Role::Opener, ..member("o") };
        let mut stage = Stage::joined(kind(Topology::OneWay), vec![opener]);
        stage.hear(word("o", offer(1)));
        meet(&mut stage, 1);
        assert_eq!(arrives(&mut stage, 1, (1, "welcome")), ["O: welcome"]);
        say(&mut stage, "hello");
        assert_eq!((words(&stage), stage.failures()[0].code), (vec![], FailureCode::Chat));
        assert!(stage.failures()[0].message.contains("only the host"));
    }

    #[test]
    fn what_cannot_be_said_is_refused_with_its_reason() {
        let refused = |stage: &mut Stage| {
            say(stage, "hello");
            assert_eq!(words(stage), []);
            stage.failures()[0].message.clone()
        };
        let mut stage = Stage::opened(MESH);
        assert!(refused(&mut stage).contains("audio+video+data/many-to-many"));
        let mut stage = Stage::opened(kind(Topology::OneToOne));
        assert!(refused(&mut stage).contains("nobody is in session"));
        stage.leave();
        assert!(refused(&mut stage).contains("you are not in session"));
        stage.join(None, true);
        assert!(refused(&mut stage).contains("is not open"));
    }

    #[test]
    fn who_left_and_came_again_is_not_taken_for_an_echo() {
        let mut stage = with_a(Topology::ManyToMany);
        say(&mut stage, "before");
        let before = written(&stage)[0].1;
        stage.leave().pass(Duration::from_micros(1)).open(kind(Topology::ManyToMany));
        stage.hear(opened(kind(Topology::ManyToMany), vec![member("a")]));
        stage.hear(word("a", offer(1)));
        meet(&mut stage, 2);
        say(&mut stage, "after");
        assert!(written(&stage)[0].1 > before);
    }
}
