//! Relays signals between members: who may signal to whom, how long a signal may be, and how many
//! are allowed.

use crate::model::{
    ErrorCode, HubMessage, MAX_CANDIDATE_BYTES, MAX_SDP_BYTES, ParticipantId, Payload, SessionId,
    SignalPayload,
};

use super::{
    home::{Home, HomeOutput, Sender},
    signal_budget::SignalRoute,
};

/// The most media sections of a session description: Quintet's have three, other programs add one
/// for each track.
const MAX_MEDIA_SECTIONS: usize = 64;

/// The longest `mid`, in bytes; it is a short label (RFC 8843).
const MAX_MID_BYTES: usize = 64;

impl Home {
    /// Relays a signal to a member that is paired with the sender.
    ///
    /// A signal to a member without a connection is dropped: a returning member negotiates anew. A
    /// signal to a member that is only silent is relayed, since its connection may still deliver
    /// it.
    pub(super) fn relay_signal(
        &mut self,
        sender: &Sender,
        session: SessionId,
        to: &ParticipantId,
        payload: SignalPayload,
    ) {
        let participant = &sender.participant;
        if let Err((code, text)) = check_payload(payload.known()) {
            return self.refuse_signal(participant, code, &session, &text);
        }
        if !self.is_paired(&session, participant, to) {
            let text = format!(
                "in session {session} you are not connected to that participant (any more)"
            );
            return self.send_error(participant, ErrorCode::NotAllowed, Some(&session), &text);
        }
        let receiver = self.sessions.get(&session).and_then(|room| room.seat(to));
        if !receiver.is_some_and(|seat| seat.is_connected()) {
            return;
        }
        let route = SignalRoute { from: participant, source: sender.source, to };
        if self.budgets.try_spend(&route, &payload, self.now) {
            self.notify(to, HubMessage::Signal { session, from: participant.clone(), payload });
        } else {
            self.refuse_excess_signal(participant, &session);
        }
    }

    /// Refuses a signal because its sender exceeds what a receiver has to take.
    pub(super) fn refuse_excess_signal(
        &mut self,
        participant: &ParticipantId,
        session: &SessionId,
    ) {
        let text = "you send more signals than a member of a session accepts; send less";
        self.refuse_signal(participant, ErrorCode::TooMany, session, text);
    }

    /// Refuses a signal that a correct client does not send, and closes the connection at the
    /// tenth.
    fn refuse_signal(
        &mut self,
        participant: &ParticipantId,
        code: ErrorCode,
        session: &SessionId,
        text: &str,
    ) {
        self.send_error(participant, code, Some(session), text);
        self.push(HomeOutput::SignalRefused { from: participant.clone() });
    }

    fn is_paired(
        &self,
        session: &SessionId,
        participant: &ParticipantId,
        to: &ParticipantId,
    ) -> bool {
        let Some(room) = self.sessions.get(session) else { return false };
        let Some(seat) = room.seat(participant) else { return false };
        seat.is_connected() && room.paired_with(seat).any(|other| other.participant == *to)
    }
}

/// Whether a payload may be relayed. An unknown payload may: the length of a message limits it, and
/// its receiver judges it.
fn check_payload(payload: &Payload) -> Result<(), (ErrorCode, String)> {
    check_generation(payload)?;
    match payload {
        Payload::Offer { sdp, .. } | Payload::Answer { sdp, .. } => {
            check_size("a session description", sdp.len(), MAX_SDP_BYTES)?;
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
            check_size("a candidate", candidate.len(), MAX_CANDIDATE_BYTES)?;
            check_size("a mid", mid.as_ref().map_or(0, String::len), MAX_MID_BYTES)
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

fn check_size(what: &str, bytes: usize, max: usize) -> Result<(), (ErrorCode, String)> {
    if bytes <= max {
        return Ok(());
    }
    Err((ErrorCode::BadMessage, format!("{what} has at most {max} bytes, not {bytes}")))
}
