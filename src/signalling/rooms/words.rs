//! Relays signals between members: who may signal to whom, how long a signal may be, and how many
//! are allowed.

use crate::model::{
    ErrorCode, HubMessage, MAX_CANDIDATE_BYTES, MAX_SDP_BYTES, ParticipantId, Payload, SessionId,
    SignalPayload,
};

use super::{Rooms, budget::Way};

/// The most media sections of a session description: Quintet's have three, other programs add one
/// for each track.
const MAX_MEDIA_SECTIONS: usize = 64;

/// The longest `mid`, in bytes; it is a short label (RFC 8843).
const MAX_MID_BYTES: usize = 64;

impl Rooms {
    /// Relays a signal to a member that is paired with the sender.
    ///
    /// A signal to a member without a connection is dropped: a returning member negotiates anew. A
    /// signal to a member that is only silent is relayed, since its connection may still deliver
    /// it.
    pub(super) fn signal(
        &mut self,
        participant: &ParticipantId,
        session: SessionId,
        to: &ParticipantId,
        payload: SignalPayload,
    ) {
        if let Err((code, text)) = check(payload.known()) {
            return self.strike(participant, code, &session, &text);
        }
        if !self.is_linked(&session, participant, to) {
            let text = format!(
                "in session {session} you are not connected to that participant (any more)"
            );
            return self.refuse(participant, ErrorCode::NotAllowed, Some(&session), &text);
        }
        let receiver = self.sessions.get(&session).and_then(|room| room.seat(to));
        if !receiver.is_some_and(|seat| seat.is_held()) {
            return;
        }
        let route = Way { from: participant, source: self.person(participant).source, to };
        if self.budgets.pay(&route, &payload, self.now) {
            self.tell(to, HubMessage::Signal { session, from: participant.clone(), payload });
        } else {
            self.signals_too_much(participant, &session);
        }
    }

    /// Refuses a signal because its sender exceeds what a receiver has to take.
    pub(super) fn signals_too_much(&mut self, participant: &ParticipantId, session: &SessionId) {
        let text = "you send more signals than a member of a session accepts; send less";
        self.strike(participant, ErrorCode::TooMany, session, text);
    }

    /// Refuses a signal that a correct client does not send, and closes the connection at the
    /// tenth.
    fn strike(
        &mut self,
        participant: &ParticipantId,
        code: ErrorCode,
        session: &SessionId,
        text: &str,
    ) {
        self.refuse(participant, code, Some(session), text);
        self.count_strike(participant);
    }

    fn is_linked(
        &self,
        session: &SessionId,
        participant: &ParticipantId,
        to: &ParticipantId,
    ) -> bool {
        let Some(room) = self.sessions.get(session) else { return false };
        let Some(seat) = room.seat(participant) else { return false };
        seat.is_held() && room.linked(seat).any(|other| other.participant == *to)
    }
}

/// Whether a payload may be relayed. An unknown payload may: the length of a message limits it, and
/// its receiver judges it.
fn check(payload: &Payload) -> Result<(), (ErrorCode, String)> {
    check_generation(payload)?;
    match payload {
        Payload::Offer { sdp, .. } | Payload::Answer { sdp, .. } => {
            within("a session description", sdp.len(), MAX_SDP_BYTES)?;
            let sections = sdp.split(['\r', '\n']).filter(|line| line.starts_with("m=")).count();
            if sections == 0 {
                let text = "a session description has at least one media section".to_owned();
                return Err((ErrorCode::BadMessage, text));
            }
            if sections > MAX_MEDIA_SECTIONS {
                let text = format!(
                    "a session description has at most {MAX_MEDIA_SECTIONS} media sections, not \
                     {sections}"
                );
                return Err((ErrorCode::BadMessage, text));
            }
            Ok(())
        }
        Payload::Candidate { candidate, mid, .. } => {
            within("a candidate", candidate.len(), MAX_CANDIDATE_BYTES)?;
            within("a mid", mid.as_ref().map_or(0, String::len), MAX_MID_BYTES)
        }
        Payload::Media { .. } | Payload::Unknown => Ok(()),
    }
}

fn check_generation(payload: &Payload) -> Result<(), (ErrorCode, String)> {
    match payload {
        Payload::Offer { generation: 0, .. }
        | Payload::Answer { generation: 0, .. }
        | Payload::Candidate { generation: 0, .. } => {
            Err((ErrorCode::BadMessage, "a generation is 1 or more, not 0".to_owned()))
        }
        Payload::Offer { .. }
        | Payload::Answer { .. }
        | Payload::Candidate { .. }
        | Payload::Media { .. }
        | Payload::Unknown => Ok(()),
    }
}

fn within(what: &str, bytes: usize, max: usize) -> Result<(), (ErrorCode, String)> {
    if bytes <= max {
        return Ok(());
    }
    Err((ErrorCode::BadMessage, format!("{what} has at most {max} bytes, not {bytes}")))
}
