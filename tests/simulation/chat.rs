//! What must hold of chats: a text is heard in its session, by those who were there, once, in the
//! order in which it was said; and whoever stays hears it in the end, or is named to the sayer.

use std::collections::{BTreeMap, BTreeSet};

use quintet::{
    conference::Input,
    model::{
        ChatText, Command, Event, ParticipantId, ParticipantState, PeerEvent, PeerState, SessionId,
        SessionState,
    },
};

use super::world::{Verdict, World};

/// Everything that was said and heard.
#[derive(Default)]
pub(crate) struct Chats {
    /// Each text is its index here.
    said: Vec<Saying>,
    /// The newest text that a program, in one life, has heard of somebody in a session.
    heard: BTreeMap<(usize, u32, SessionId, ParticipantId), usize>,
    /// Which text has reached whom.
    reached: BTreeSet<(usize, ParticipantId)>,
    /// Whom a program was told that something did not reach.
    lost: BTreeSet<(usize, SessionId, ParticipantId)>,
}

struct Saying {
    program: usize,
    life: u32,
    who: ParticipantId,
    session: SessionId,
    audience: Vec<ParticipantId>,
    at: u64,
}

impl World {
    /// A person says something in a session where somebody is, if there is a chat to do it in.
    pub(crate) fn speak(&mut self, program: usize, session: usize) -> Verdict {
        let (id, one) = (self.plan.sessions[session].id.clone(), &self.programs[program]);
        let statuses = one.snapshot().sessions;
        let Some(status) = statuses.into_iter().find(|status| status.session == id) else {
            return Ok(());
        };
        let may_write = status.kind.is_some_and(|kind| kind.may_write(status.role));
        let is_in = matches!(status.state, SessionState::Live | SessionState::Reconnecting { .. });
        if !may_write || !is_in || status.participants.is_empty() {
            return Ok(());
        }
        let audience = status.participants.into_iter().map(|one| one.participant).collect();
        let (who, life, at) = (one.participant(), one.life, self.now);
        let saying = Saying { program, life, who, session: id.clone(), audience, at };
        let number = self.chats.said.len();
        self.chats.said.push(saying);
        let text = ChatText::new(&number.to_string()).map_err(|error| error.to_string())?;
        self.feed(program, Input::Command(Command::Say { session: id, text }))
    }

    /// A program tells of its chats, or of who is out of them.
    pub(crate) fn note_chat(&mut self, index: usize, event: &Event) -> Verdict {
        match event {
            Event::Message { session, participant, text, .. } => {
                self.heard(index, (session, participant), text)
            }
            Event::Undelivered { session, participant, .. } => {
                self.chats.lost.insert((index, session.clone(), participant.clone()));
                Ok(())
            }
            // Whoever comes again later is somebody new.
            Event::Participant { session, participant, state: ParticipantState::Left, .. } => {
                let (chats, life) = (&mut self.chats, self.programs[index].life);
                chats.heard.remove(&(index, life, session.clone(), participant.clone()));
                Ok(())
            }
            Event::Ended { session, .. } => {
                self.chats.heard.retain(|(by, _, of, _), _| *by != index || of != session);
                Ok(())
            }
            Event::Participant { .. }
            | Event::Said { .. }
            | Event::Failed(_)
            | Event::Listening { .. }
            | Event::LinkChanged { .. }
            | Event::HubLost { .. }
            | Event::HubBack { .. }
            | Event::Opened { .. }
            | Event::Waiting { .. }
            | Event::Joined { .. }
            | Event::LeftOut { .. }
            | Event::Renamed { .. }
            | Event::Access { .. }
            | Event::FirstFrame { .. } => Ok(()),
        }
    }

    fn heard(
        &mut self,
        index: usize,
        (session, from): (&SessionId, &ParticipantId),
        text: &ChatText,
    ) -> Verdict {
        let (me, life) = (self.programs[index].participant(), self.programs[index].life);
        let fault = |what: &str| Err(format!("P{index} hears {text:?} of {from}: {what}"));
        let number: usize = text.as_str().parse().map_err(|_| "nobody said that")?;
        let Some(saying) = self.chats.said.get(number) else { return fault("nobody said that") };
        if saying.session != *session || saying.who != *from {
            return fault("it was said elsewhere");
        }
        if !saying.audience.contains(&me) {
            return fault("it was not meant for it");
        }
        let key = (index, life, session.clone(), from.clone());
        if self.chats.heard.insert(key, number).is_some_and(|before| before >= number) {
            return fault("it was heard before, or later words were");
        }
        self.chats.reached.insert((number, me));
        self.report.heard += 1;
        Ok(())
    }

    /// In the end a text has reached everybody who was there and is, unless its sayer was told.
    pub(crate) fn judge_chats(&self) -> Verdict {
        for (number, saying) in self.chats.said.iter().enumerate() {
            let program = &self.programs[saying.program];
            let ended = program.ended.get(&saying.session).is_some_and(|(_, at)| *at >= saying.at);
            if program.core.is_none() || program.life != saying.life || ended {
                continue;
            }
            for who in &saying.audience {
                let shown = self.shown(saying.program, &saying.session, who);
                let is_live = shown.is_some_and(|(state, _)| state == ParticipantState::Live);
                let told = (saying.program, saying.session.clone(), who.clone());
                let reached = self.chats.reached.contains(&(number, who.clone()));
                if is_live && !reached && !self.chats.lost.contains(&told) {
                    let (by, session) = (saying.program, &saying.session);
                    return Err(format!("what P{by} said in {session} never reached {who}"));
                }
            }
        }
        Ok(())
    }

    /// Opens the channel of a connection that packets flow on, and brings what was written there
    /// to the other end: now, or at another look.
    pub(crate) fn look_at_channel(&mut self, index: usize) -> Verdict {
        let one = &self.connections[index];
        let flows = one.media.data && one.is_open && one.state == PeerState::Connected;
        if !flows || !self.flows(index) {
            return Ok(());
        }
        if !std::mem::replace(&mut self.connections[index].is_writable, true) {
            self.told(index, PeerEvent::Writable)?;
        }
        let Some(other) = self.connections[index].remote.map(|uid| uid as usize) else {
            return Ok(());
        };
        let idle = self.connections[index].unread.is_empty();
        if idle || self.chance.percent(40) {
            return Ok(());
        }
        while let Some(message) = self.connections[index].unread.pop_front() {
            // What arrives before the other end has its channel is lost, as it is with the library.
            if self.connections[other].is_writable {
                self.told(other, PeerEvent::Read(message))?;
            }
        }
        Ok(())
    }
}
