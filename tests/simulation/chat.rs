//! Checks of the chat. A text arrives only in its session, only at participants that were there,
//! once, and in order. In the end it reaches every participant that stayed, or is reported to its
//! sender as undelivered.

use std::collections::{BTreeMap, BTreeSet};

use quintet::{
    conference::Input,
    model::{
        ChatText, Command, DataChannelKind, Event, ParticipantId, ParticipantState, PeerEvent,
        PeerState, SessionId, SessionState,
    },
};

use super::world::{Verdict, World};

/// All texts that were sent and received.
#[derive(Default)]
pub(crate) struct Chats {
    /// The texts. The content of a text is its index here.
    texts: Vec<SentText>,
    /// The newest text that one life of a program received from a participant in a session.
    last_received: BTreeMap<(usize, u32, SessionId, ParticipantId), usize>,
    /// The texts and the participants that they reached.
    delivered: BTreeSet<(usize, ParticipantId)>,
    /// The participants for which a program reported undelivered texts.
    reported_lost: BTreeSet<(usize, SessionId, ParticipantId)>,
}

struct SentText {
    program: usize,
    life: u32,
    sender: ParticipantId,
    session: SessionId,
    recipients: Vec<ParticipantId>,
    sent_at: u64,
}

impl World {
    /// A user sends a text in a session, if it has a chat in which the user may write, and other
    /// participants.
    pub(crate) fn send_text(&mut self, program: usize, session: usize) -> Verdict {
        let (id, one) = (self.plan.sessions[session].id.clone(), &self.programs[program]);
        let snapshot = one.snapshot();
        let Some(status) = snapshot.sessions.iter().find(|status| status.session == id) else {
            return Ok(());
        };
        let may_write = status.kind.is_some_and(|kind| kind.may_chat(status.role));
        let is_in = matches!(status.state, SessionState::Live | SessionState::Reconnecting { .. });
        if !may_write || !is_in || status.participants.is_empty() {
            return Ok(());
        }
        let recipients = status.participants.iter().map(|one| one.participant.clone()).collect();
        let (sender, life, sent_at) = (one.participant(), one.life, self.now);
        let sent = SentText { program, life, sender, session: id.clone(), recipients, sent_at };
        let number = self.chats.texts.len();
        self.chats.texts.push(sent);
        let text = ChatText::new(&number.to_string()).map_err(|error| error.to_string())?;
        self.handle_input(program, Input::Command(Command::SendMessage { session: id, text }))
    }

    /// Handles an event of a program about its chats or its participants.
    pub(crate) fn on_chat_event(&mut self, index: usize, event: &Event) -> Verdict {
        match event {
            Event::MessageReceived { session, participant, text, .. } => {
                self.on_text(index, (session, participant), text)
            }
            Event::Undelivered { session, participant, .. } => {
                self.chats.reported_lost.insert((index, session.clone(), participant.clone()));
                Ok(())
            }
            // A participant that comes back later counts as new.
            Event::Participant { session, participant, state: ParticipantState::Left, .. } => {
                let (chats, life) = (&mut self.chats, self.programs[index].life);
                chats.last_received.remove(&(index, life, session.clone(), participant.clone()));
                Ok(())
            }
            Event::Ended { session, .. } => {
                self.chats.last_received.retain(|(by, _, of, _), _| *by != index || of != session);
                Ok(())
            }
            Event::Participant { .. }
            | Event::MessageSent { .. }
            | Event::Failed(_)
            | Event::Listening { .. }
            | Event::LinkChanged { .. }
            | Event::HubLost { .. }
            | Event::HubRestored { .. }
            | Event::Opened { .. }
            | Event::Waiting { .. }
            | Event::Joined { .. }
            | Event::LeftOut { .. }
            | Event::MicrophoneSilent
            | Event::ActiveSpeaker { .. }
            | Event::SpeakingWhileMuted
            | Event::EncoderLate
            | Event::UploadFull
            | Event::UploadOk
            | Event::Renamed { .. }
            | Event::Access { .. }
            | Event::FirstFrame { .. } => Ok(()),
        }
    }

    fn on_text(
        &mut self,
        index: usize,
        (session, from): (&SessionId, &ParticipantId),
        text: &ChatText,
    ) -> Verdict {
        let (me, life) = (self.programs[index].participant(), self.programs[index].life);
        let error = |what: &str| Err(format!("P{index} got {text:?} of {from}: {what}"));
        let number: usize = text.as_str().parse().map_err(|_| "that text was never sent")?;
        let Some(sent) = self.chats.texts.get(number) else { return error("it was never sent") };
        if sent.session != *session || sent.sender != *from {
            return error("it was sent elsewhere");
        }
        if !sent.recipients.contains(&me) {
            return error("it was not sent to it");
        }
        let key = (index, life, session.clone(), from.clone());
        if self.chats.last_received.insert(key, number).is_some_and(|before| before >= number) {
            return error("it arrived before, or a later text did");
        }
        self.chats.delivered.insert((number, me));
        self.report.texts_received += 1;
        Ok(())
    }

    /// In the end each text has reached every participant that was there and still is, unless its
    /// sender was told otherwise.
    pub(crate) fn check_chats(&self) -> Verdict {
        for (number, sent) in self.chats.texts.iter().enumerate() {
            let program = &self.programs[sent.program];
            let ended = program.ended.get(&sent.session).is_some_and(|(_, at)| *at >= sent.sent_at);
            if program.core.is_none() || program.life != sent.life || ended {
                continue;
            }
            for recipient in &sent.recipients {
                let shown = self.shown_state(sent.program, &sent.session, recipient);
                let is_live = shown.is_some_and(|(state, _)| state == ParticipantState::Live);
                let key = (sent.program, sent.session.clone(), recipient.clone());
                let reached = self.chats.delivered.contains(&(number, recipient.clone()));
                if is_live && !reached && !self.chats.reported_lost.contains(&key) {
                    let (by, session) = (sent.program, &sent.session);
                    return Err(format!("a text of P{by} in {session} never reached {recipient}"));
                }
            }
        }
        Ok(())
    }

    /// Opens the data channel of a connection on which packets flow, and delivers what was sent on
    /// it, now or at a later tick.
    pub(crate) fn update_channel(&mut self, index: usize) -> Verdict {
        let one = &self.connections[index];
        let flows = one.media.channels.chat && one.is_open && one.state == PeerState::Connected;
        if !flows || !self.flows(index) {
            return Ok(());
        }
        if !std::mem::replace(&mut self.connections[index].is_writable, true) {
            self.peer_event(index, PeerEvent::ChannelOpen(DataChannelKind::Chat))?;
        }
        let Some(other) = self.connections[index].remote.map(|uid| uid as usize) else {
            return Ok(());
        };
        let idle = self.connections[index].unread.is_empty();
        if idle || self.rng.percent(40) {
            return Ok(());
        }
        while let Some(message) = self.connections[index].unread.pop_front() {
            // As with webrtc-rs, a message that arrives before the channel is open is lost.
            if self.connections[other].is_writable {
                self.peer_event(other, PeerEvent::ChannelMessage(message))?;
            }
        }
        Ok(())
    }
}
