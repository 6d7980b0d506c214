//! Carries out what the core decided about offers and answers (RFC 9429).

use std::sync::Arc;

use rtc::peer_connection::configuration::{
    RTCOfferOptions,
    media_engine::{MIME_TYPE_H264, MIME_TYPE_OPUS},
};
use tokio::sync::watch;
use webrtc::{
    error::Error,
    peer_connection::{PeerConnection, RTCIceCandidateInit, RTCSessionDescription},
    rtp_transceiver::RTCRtpTransceiverDirection,
};

use super::{
    addresses::HostAddresses,
    candidates::RemoteCandidates,
    crypto::CheckedCrypto,
    layout,
    sdp::{self, Description, Fingerprints, SdpError, SectionKind, Setup},
    setup::{Section, library_direction},
    ssrcs::Ssrcs,
};
use crate::model::{
    Agreement, Candidate, DescriptionKind, Direction, Media, PeerCommand, PeerEvent, Step,
};

/// One connection's offers and answers.
pub(super) struct Negotiation {
    peer: Arc<dyn PeerConnection>,
    lines: Vec<Line>,
    has_data: bool,
    /// The local offer that stands unanswered.
    offer: Option<Description>,
    /// The other end's fingerprints, once agreed on.
    certificate: Option<Fingerprints>,
    /// Our part in the DTLS handshake, once agreed on: it stays (RFC 8842, section 5.3).
    role: Option<Setup>,
    /// All sections, once agreed on, rejected ones too: they keep their places.
    layout: Vec<sdp::Section>,
    /// What was agreed on and not yet told.
    news: Option<Agreement>,
    connected: bool,
    limits: RemoteLimits,
    /// The other end's candidates of this ICE generation.
    candidates: RemoteCandidates,
    /// The name fragments of the other end's ICE credentials.
    fragments: Vec<String>,
}

/// What the other end's descriptions and candidates are measured by.
pub(super) struct RemoteLimits {
    /// The addresses that our sockets have.
    pub(super) addresses: HostAddresses,
    /// Where the streams are noted that it names.
    pub(super) ssrcs: Arc<Ssrcs>,
    /// What checks its certificate.
    pub(super) crypto: Arc<CheckedCrypto>,
}

/// An audio or video section, and whether it may be sent on.
pub(super) struct Line {
    pub(super) kind: SectionKind,
    pub(super) section: Section,
    /// What to send with while the negotiated direction sends, else `None`.
    pub(super) payload_type: Option<u8>,
    /// The same while packets can flow.
    pub(super) open: watch::Sender<Option<u8>>,
}

/// Why a command was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum NegotiationError {
    #[error("an offer of this end stands unanswered")]
    OfferStands,
    #[error("no offer of this end stands")]
    NoOffer,
    #[error("{0}")]
    Sdp(#[from] SdpError),
    #[error("{0}")]
    Library(#[from] Error),
    /// An offer for this connection comes from another one.
    #[error("the offer brings another certificate: it is of a new connection, not of this one")]
    AnotherConnection,
    /// An offer for this connection begins another DTLS handshake.
    #[error("the offer changes who begins the DTLS handshake: it is of a new connection")]
    AnotherHandshake,
    /// The library took half of a description: there is no way back.
    #[error("the description was taken only in part: {0}")]
    Broken(Box<Self>),
}

impl NegotiationError {
    fn broken(self) -> Self {
        Self::Broken(Box::new(self))
    }
}

impl Negotiation {
    pub(super) fn new(
        peer: Arc<dyn PeerConnection>,
        lines: Vec<Line>,
        has_data: bool,
        limits: RemoteLimits,
    ) -> Self {
        Self {
            peer,
            lines,
            has_data,
            offer: None,
            certificate: None,
            role: None,
            layout: vec![],
            news: None,
            connected: false,
            limits,
            candidates: RemoteCandidates::default(),
            fragments: vec![],
        }
    }

    /// What was agreed on since this was asked last.
    pub(super) const fn take_news(&mut self) -> Option<Agreement> {
        self.news.take()
    }

    /// A local candidate, for the section whose transport carries all (RFC 8843, section 7).
    pub(super) fn candidate(&self, line: String) -> Candidate {
        let offered = self.offer.as_ref().map_or(&self.layout, |offer| &offer.sections);
        let first = offered.iter().position(|section| section.is_taken).unwrap_or(0);
        let mid = offered.get(first).map(|section| section.mid.clone());
        Candidate { line, mid, index: Some(first as u16) }
    }

    /// Notes whether packets flow: senders are fed only then.
    pub(super) fn set_connected(&mut self, connected: bool) {
        self.connected = connected;
        self.open_lines();
    }

    /// Carries the command out. Its outcome is an event, and false if the connection is beyond
    /// repair.
    pub(super) async fn carry_out(&mut self, command: PeerCommand) -> (Option<PeerEvent>, bool) {
        let (step, result) = match command {
            PeerCommand::MakeOffer { step, restart_ice } => {
                let sdp = self.make_offer(restart_ice).await;
                (step, sdp.map(|sdp| described(step, DescriptionKind::Offer, sdp)))
            }
            PeerCommand::Rollback { step } => {
                (step, self.roll_back().await.map(|()| PeerEvent::Done { step }))
            }
            PeerCommand::AcceptOffer { step, sdp } => {
                let sdp = self.accept_offer(sdp).await;
                (step, sdp.map(|sdp| described(step, DescriptionKind::Answer, sdp)))
            }
            PeerCommand::AcceptAnswer { step, sdp } => {
                (step, self.accept_answer(sdp).await.map(|()| PeerEvent::Done { step }))
            }
            PeerCommand::AddCandidate(candidate) => {
                self.add_candidate(candidate).await;
                return (None, true);
            }
            // No negotiation: the connection's task has carried it out.
            PeerCommand::Write(_) => return (None, true),
        };
        match result {
            Ok(event) => (Some(event), true),
            Err(error) => {
                let broken = matches!(error, NegotiationError::Broken(_));
                (Some(PeerEvent::Refused { step, reason: error.to_string() }), !broken)
            }
        }
    }

    async fn make_offer(&mut self, restart_ice: bool) -> Result<String, NegotiationError> {
        if self.offer.is_some() {
            return Err(NegotiationError::OfferStands);
        }
        let restart = restart_ice && self.is_negotiated();
        let options = RTCOfferOptions { ice_restart: restart };
        let offer = self.peer.create_offer(Some(options)).await?;
        let sdp = layout::for_other_end(&offer.sdp, &self.layout);
        let description = Description::read(&sdp)?;
        self.peer.set_local_description(offer).await?;
        self.offer = Some(description);
        if restart {
            self.candidates.restart();
        }
        Ok(if restart { sdp::without_candidates(&sdp) } else { sdp })
    }

    async fn roll_back(&mut self) -> Result<(), NegotiationError> {
        if self.offer.is_none() {
            return Err(NegotiationError::NoOffer);
        }
        self.peer.set_local_description(RTCSessionDescription::rollback(None)?).await?;
        self.offer = None;
        Ok(())
    }

    async fn accept_answer(&mut self, sdp: String) -> Result<(), NegotiationError> {
        let offer = self.offer.as_ref().ok_or(NegotiationError::NoOffer)?;
        let sdp = sdp::normalized(&sdp);
        let answered = Description::read(&sdp)?;
        answered.answers(offer)?;
        if answered.first_taken().is_none() {
            self.agreed(&answered).await;
            return Ok(());
        }
        let theirs = layout::for_library(&sdp, &answered);
        let answer = RTCSessionDescription::answer(self.for_library(&theirs, &answered))?;
        if let Err(error) = self.peer.set_remote_description(answer).await {
            // Still pending: nothing of the answer was taken.
            return Err(match self.peer.pending_local_description().await {
                Some(_) => error.into(),
                None => NegotiationError::from(error).broken(),
            });
        }
        if let Some(mut offer) = self.offer.take() {
            offer.also_rejected_by(&answered);
            self.layout = offer.sections;
        }
        // The library's choice, if the answer leaves it open.
        self.role.get_or_insert(match answered.setup {
            Some(Setup::Passive) => Setup::Active,
            Some(Setup::Active | Setup::ActPass) | None => Setup::Passive,
        });
        self.certificate.clone_from(&answered.fingerprints);
        self.fragments = sdp::name_fragments(&theirs);
        self.limits.ssrcs.name(sdp::ssrcs(&theirs));
        self.agreed(&answered).await;
        self.add_candidates(&theirs).await;
        Ok(())
    }

    async fn accept_offer(&mut self, sdp: String) -> Result<String, NegotiationError> {
        if self.offer.is_some() {
            return Err(NegotiationError::OfferStands);
        }
        let sdp = sdp::normalized(&sdp);
        let mut offered = Description::read(&sdp)?;
        if offered.first_taken().is_none() {
            self.agreed(&offered).await;
            return Ok(layout::nothing(&offered));
        }
        // Taken, it would connect by ICE and never by DTLS, which began with the old certificate.
        if self.certificate.is_some() && self.certificate != offered.fingerprints {
            return Err(NegotiationError::AnotherConnection);
        }
        let role = self.role_after(&offered)?;
        let theirs = layout::for_library(&sdp, &offered);
        let offer = RTCSessionDescription::offer(self.for_library(&theirs, &offered))?;
        let answer = self.take_offer(&offered, offer).await;
        if answer.is_err() {
            let rollback = RTCSessionDescription::rollback(None)?;
            if let Err(error) = self.peer.set_remote_description(rollback).await {
                tracing::debug!(%error, "a refused offer left nothing to roll back");
            }
        }
        self.point_lines(|line| line.section.direction).await?;
        let answer = layout::for_other_end(&answer?, &offered.sections);
        offered.also_rejected_by(&Description::read(&answer)?);
        self.role = Some(role);
        self.certificate.clone_from(&offered.fingerprints);
        self.agreed(&offered).await;
        self.layout = offered.sections;
        // All are other ones: whichever the library goes by, it has restarted ICE.
        let fragments = sdp::name_fragments(&theirs);
        if !fragments.iter().any(|fragment| self.fragments.contains(fragment)) {
            self.candidates.restart();
        }
        self.fragments = fragments;
        self.limits.ssrcs.name(sdp::ssrcs(&theirs));
        self.add_candidates(&theirs).await;
        // The library writes into each answer what it would choose for the first one.
        Ok(layout::with_setup(&answer, role))
    }

    /// The other end's taken sections as the library gets them: without candidates, which come one by
    /// one, and with one fingerprint, since it knows neither several nor other hashes.
    fn for_library(&self, theirs: &str, description: &Description) -> String {
        let text = sdp::without_candidates(theirs);
        match &description.fingerprints {
            Some(fingerprints) => {
                sdp::with_fingerprint(&text, &self.limits.crypto.accept(fingerprints))
            }
            None => text,
        }
    }

    /// Our part in the DTLS handshake when this offer is answered.
    fn role_after(&self, offered: &Description) -> Result<Setup, NegotiationError> {
        let open = match self.role {
            Some(role) => role,
            // The library's choice.
            None if offered.is_ice_lite => Setup::Passive,
            None => Setup::Active,
        };
        let role = match offered.setup {
            Some(Setup::Active) => Setup::Passive,
            Some(Setup::Passive) => Setup::Active,
            Some(Setup::ActPass) | None => open,
        };
        match self.role {
            Some(known) if known != role => Err(NegotiationError::AnotherHandshake),
            Some(_) | None => Ok(role),
        }
    }

    /// Whether an offer was answered, by either end.
    const fn is_negotiated(&self) -> bool {
        self.role.is_some()
    }

    /// Takes the offer and answers it with what both ends want.
    ///
    /// The library pairs an offered section with one of ours only if their directions suit it,
    /// and else makes a section of its own that receives. So ours are pointed to where they are
    /// found, then to what is agreed on; sections of the other end's making stay inactive.
    async fn take_offer(
        &self,
        offered: &Description,
        offer: RTCSessionDescription,
    ) -> Result<String, NegotiationError> {
        self.point_lines(|line| line.found_by(offered)).await?;
        self.peer.set_remote_description(offer).await?;
        let answer = match self.answer(offered).await {
            // The first offer has started the transports, and they start once.
            Err(error) if !self.is_negotiated() => return Err(error.broken()),
            answer => answer?,
        };
        let sdp = answer.sdp.clone();
        let taken = self.peer.set_local_description(answer).await;
        taken.map_err(|error| NegotiationError::from(error).broken())?;
        Ok(sdp)
    }

    async fn answer(
        &self,
        offered: &Description,
    ) -> Result<RTCSessionDescription, NegotiationError> {
        self.point_lines(|line| line.agreed_with(offered)).await?;
        self.silence_foreign_sections().await?;
        let answer = self.peer.create_answer(None).await?;
        Description::read(&answer.sdp)?.answers(&offered.taken())?;
        Ok(answer)
    }

    async fn point_lines(&self, to: impl Fn(&Line) -> Direction) -> Result<(), Error> {
        for line in &self.lines {
            line.section.transceiver.set_direction(library_direction(to(line))).await?;
        }
        Ok(())
    }

    async fn silence_foreign_sections(&self) -> Result<(), Error> {
        for transceiver in self.peer.get_transceivers().await {
            let own = |line: &Line| line.section.transceiver.id() == transceiver.id();
            if !self.lines.iter().any(own) {
                transceiver.set_direction(RTCRtpTransceiverDirection::Inactive).await?;
            }
        }
        Ok(())
    }

    /// Tells the senders what was agreed on; `theirs` is what the other end said.
    async fn agreed(&mut self, theirs: &Description) {
        let mut agreement = Agreement::default();
        for line in &mut self.lines {
            line.payload_type = None;
            let Some(section) = theirs.section(line.kind) else {
                agreement.leave_out(line.media());
                continue;
            };
            if !section.direction.sends() || !line.section.direction.receives() {
                agreement.receive_no(line.media());
            }
            line.payload_type = line.sends_with().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "what was agreed on cannot be read; nothing is sent");
                None
            });
            if line.payload_type.is_none() {
                agreement.send_no(line.media());
            }
        }
        if self.has_data && theirs.section(SectionKind::Application).is_none() {
            agreement.leave_out(Media::Data);
        }
        self.news = Some(agreement);
        self.open_lines();
    }

    fn open_lines(&self) {
        for line in &self.lines {
            let open = line.payload_type.filter(|_| self.connected);
            line.open.send_if_modified(|known| std::mem::replace(known, open) != open);
        }
    }

    /// Takes the candidates of a description, by the same rule as those that come later.
    async fn add_candidates(&mut self, sdp: &str) {
        for line in sdp::candidates(sdp) {
            self.add_candidate(Candidate { line: line.to_owned(), mid: None, index: None }).await;
        }
    }

    /// Errors are the other end's: they are logged and cost one way to reach it.
    async fn add_candidate(&mut self, candidate: Candidate) {
        let Candidate { line, mid, index } = candidate;
        // There will be no more.
        if line.is_empty() {
            return;
        }
        let candidate = match self.candidates.take(&line, &self.limits.addresses.chosen()) {
            Ok(candidate) => candidate,
            Err(error) => {
                tracing::debug!(%error, "a remote candidate is not taken");
                return;
            }
        };
        let init = RTCIceCandidateInit {
            candidate,
            sdp_mid: mid,
            sdp_mline_index: index,
            ..RTCIceCandidateInit::default()
        };
        if let Err(error) = self.peer.add_ice_candidate(init).await {
            tracing::debug!(%error, "a remote candidate is not taken");
        }
    }
}

impl Line {
    const fn media(&self) -> Media {
        match self.kind {
            SectionKind::Audio => Media::Audio,
            SectionKind::Video => Media::Video,
            SectionKind::Application => Media::Data,
        }
    }

    /// The direction in which the library finds this line for the section that is offered.
    fn found_by(&self, offered: &Description) -> Direction {
        match offered.section(self.kind).map(|section| section.direction) {
            Some(Direction::SendRecv) => Direction::SendRecv,
            Some(Direction::SendOnly) => Direction::RecvOnly,
            Some(Direction::RecvOnly) => Direction::SendOnly,
            Some(Direction::Inactive) | None => self.section.direction,
        }
    }

    /// What both ends want of this line.
    fn agreed_with(&self, offered: &Description) -> Direction {
        let (sends, receives) = match offered.section(self.kind) {
            Some(theirs) => (theirs.direction.receives(), theirs.direction.sends()),
            // Not spoken of: not agreed on either, so it stays as it is for an offer of ours.
            None => return self.section.direction,
        };
        let own = self.section.direction;
        match (own.sends() && sends, own.receives() && receives) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::RecvOnly,
            (false, false) => Direction::Inactive,
        }
    }

    /// The payload type to send with, in the other end's numbering; `None` if nothing is sent.
    async fn sends_with(&self) -> Result<Option<u8>, Error> {
        let direction = self.section.transceiver.current_direction().await?;
        let sends = matches!(
            direction,
            RTCRtpTransceiverDirection::Sendrecv | RTCRtpTransceiverDirection::Sendonly
        );
        let Some(sender) = self.section.transceiver.sender().await?.filter(|_| sends) else {
            return Ok(None);
        };
        let codecs = sender.get_parameters().await?.rtp_parameters.codecs;
        let wanted = match self.kind {
            SectionKind::Audio => MIME_TYPE_OPUS,
            SectionKind::Video => MIME_TYPE_H264,
            SectionKind::Application => return Ok(None),
        };
        let codec =
            codecs.iter().find(|codec| codec.rtp_codec.mime_type.eq_ignore_ascii_case(wanted));
        Ok(codec.map(|codec| codec.payload_type))
    }
}

const fn described(step: Step, kind: DescriptionKind, sdp: String) -> PeerEvent {
    PeerEvent::Description { step, kind, sdp }
}
