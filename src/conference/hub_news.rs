//! What a hub reports, as the core reads it. It has no place for a secret, nor for the messages
//! that concern only the connection, so each level of the core matches only what it handles.

use serde::{Deserialize, Serialize};

use crate::model::{
    CloseReason, ErrorCode, HubMessage, LeaveReason, Member, ParticipantId, Payload, Presence,
    RemovedMember, Role, SessionId, SessionKind, clean_sentence,
};

/// A report of a hub.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HubNews {
    /// About one session.
    Session(SessionId, SessionNews),
    /// The hub uses our new name.
    Renamed,
    /// A request about no single session was refused.
    Refused {
        /// The kind of failure.
        code: ErrorCode,
        /// A clean sentence of the hub.
        message: String,
    },
}

/// A report of a hub about one session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionNews {
    /// We are in the session: we have opened or joined it, for the first time or again.
    Entered {
        /// The session's kind.
        kind: SessionKind,
        /// The most participants, including the opener.
        limit: u16,
        /// Our role.
        role: Role,
        /// The other members.
        members: Vec<Member>,
    },
    /// The session is not open yet; the hub lets us in when it opens.
    Waiting,
    /// About one other member.
    Member(MemberNews),
    /// The session has another owner.
    Owner {
        /// The new owner.
        participant: ParticipantId,
    },
    /// Who can join the session. Sent only to its owner.
    Access {
        /// Whether the session is locked, so that no new participant can join.
        locked: bool,
        /// The ejected participants that cannot join again yet.
        removed: Vec<RemovedMember>,
    },
    /// The session has ended for us.
    Closed {
        /// Why it ended.
        reason: CloseReason,
    },
    /// A request about the session was refused.
    Refused {
        /// The kind of failure.
        code: ErrorCode,
        /// A clean sentence of the hub.
        message: String,
    },
}

/// A report of a hub about one other member of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberNews {
    /// It joined, or returned as another instance.
    Joined(Member),
    /// It left.
    Left {
        /// The member.
        participant: ParticipantId,
        /// Why it left.
        reason: LeaveReason,
    },
    /// Its connection to the hub changed.
    Presence {
        /// The member.
        participant: ParticipantId,
        /// The state of the connection.
        presence: Presence,
    },
    /// It changed its name.
    Renamed {
        /// The member.
        participant: ParticipantId,
        /// The new name, as the hub reports it.
        name: String,
    },
    /// It sent a signal.
    Signal {
        /// The sender, verified by the hub.
        from: ParticipantId,
        /// The signal itself.
        payload: Payload,
    },
}

impl HubNews {
    /// What a message of a hub reports; `None` for a message that concerns only the connection. An
    /// owner key in it is dropped: the engine stores it before.
    pub fn of(message: HubMessage) -> Option<Self> {
        match message {
            HubMessage::Opened { session, kind, limit, owner_key: _, participants: members } => {
                about(session, SessionNews::Entered { kind, limit, role: Role::Opener, members })
            }
            HubMessage::Joined { session, kind, limit, role, participants: members } => {
                about(session, SessionNews::Entered { kind, limit, role, members })
            }
            HubMessage::Waiting { session } => about(session, SessionNews::Waiting),
            HubMessage::Owner { session, participant, owner_key: _ } => {
                about(session, SessionNews::Owner { participant })
            }
            HubMessage::Access { session, locked, removed } => {
                about(session, SessionNews::Access { locked, removed })
            }
            HubMessage::Closed { session, reason } => {
                about(session, SessionNews::Closed { reason })
            }
            HubMessage::ParticipantJoined { session, participant: member } => {
                about_member(session, MemberNews::Joined(member))
            }
            HubMessage::ParticipantLeft { session, participant, reason } => {
                about_member(session, MemberNews::Left { participant, reason })
            }
            HubMessage::ParticipantPresence { session, participant, presence } => {
                about_member(session, MemberNews::Presence { participant, presence })
            }
            HubMessage::ParticipantRenamed { session, participant, name } => {
                about_member(session, MemberNews::Renamed { participant, name })
            }
            HubMessage::Signal { session, from, payload } => {
                about_member(session, MemberNews::Signal { from, payload: payload.into_known() })
            }
            HubMessage::Error { code, message, session } => Some(refused(session, code, &message)),
            HubMessage::Renamed { .. } => Some(Self::Renamed),
            HubMessage::Welcome { .. } | HubMessage::LinkBase { .. } | HubMessage::Pong => None,
        }
    }
}

fn about(session: SessionId, news: SessionNews) -> Option<HubNews> {
    Some(HubNews::Session(session, news))
}

fn about_member(session: SessionId, news: MemberNews) -> Option<HubNews> {
    about(session, SessionNews::Member(news))
}

fn refused(session: Option<SessionId>, code: ErrorCode, message: &str) -> HubNews {
    let message = clean_sentence(message);
    match session {
        Some(session) => HubNews::Session(session, SessionNews::Refused { code, message }),
        None => HubNews::Refused { code, message },
    }
}
