//! Executes the core's commands for offers and answers (RFC 9429).

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

/// The offer/answer state of one connection.
pub(super) struct Negotiation {
    peer: Arc<dyn PeerConnection>,
    lines: Vec<Line>,
    has_data: bool,
    /// The local offer that is not answered yet.
    offer: Option<Description>,
    /// The fingerprints of the remote certificate, once negotiated.
    certificate: Option<Fingerprints>,
    /// Our DTLS role, once negotiated. It does not change any more (RFC 8842, section 5.3).
    role: Option<Setup>,
    /// All negotiated media sections, rejected ones included: they keep their positions.
    layout: Vec<sdp::Section>,
    /// The latest agreement, if it was not reported yet.
    news: Option<Agreement>,
    connected: bool,
    limits: RemoteLimits,
    /// The remote candidates of this ICE generation.
    candidates: RemoteCandidates,
    /// The username fragments of the remote ICE credentials.
    fragments: Vec<String>,
}

/// The objects that limit and check remote descriptions and candidates.
pub(super) struct RemoteLimits {
    /// The addresses of our sockets.
    pub(super) addresses: HostAddresses,
    /// Records the SSRCs that remote descriptions announce.
    pub(super) ssrcs: Arc<Ssrcs>,
    /// Checks the remote certificate.
    pub(super) crypto: Arc<CheckedCrypto>,
}

/// The transceiver of an audio or video section, with its negotiated state.
pub(super) struct Line {
    pub(super) kind: SectionKind,
    pub(super) section: Section,
    /// The payload type to send with; `None` unless the negotiated direction sends.
    pub(super) payload_type: Option<u8>,
    /// The same while the connection is connected, else `None`.
    pub(super) open: watch::Sender<Option<u8>>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NegotiationError {
    #[error("a local offer is pending")]
    OfferStands,
    #[error("no local offer is pending")]
    NoOffer,
    #[error("{0}")]
    Sdp(#[from] SdpError),
    #[error("{0}")]
    Library(#[from] Error),
    /// The offer is of another connection.
    #[error("the offer has another certificate, so it is of a new connection")]
    AnotherConnection,
    /// The offer would begin a new DTLS handshake.
    #[error("the offer changes the roles in the DTLS handshake, so it is of a new connection")]
    AnotherHandshake,
    /// webrtc-rs applied a part of a description, so a rollback is not possible.
    #[error("the description was applied only in part: {0}")]
    Broken(Box<Self>),
}

impl NegotiationError {
    fn broken(self) -> Self {
        Self::Broken(Box::new(self))
    }
}

impl Negotiation {
    pub(super) fn new(
        peer_connection: Arc<dyn PeerConnection>,
        transceivers: Vec<Line>,
        has_data: bool,
        limits: RemoteLimits,
    ) -> Self {
        Self {
            peer: peer_connection,
            lines: transceivers,
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

    /// Takes the agreement that was reached since the last call, if any.
    pub(super) const fn take_news(&mut self) -> Option<Agreement> {
        self.news.take()
    }

    /// A local candidate, for the section whose transport carries all sections (RFC 8843, section
    /// 7).
    pub(super) fn candidate(&self, line: String) -> Candidate {
        let sections = self.offer.as_ref().map_or(&self.layout, |offer| &offer.sections);
        let first = sections.iter().position(|section| section.is_taken).unwrap_or(0);
        let mid = sections.get(first).map(|section| section.mid.clone());
        Candidate { line, mid, index: Some(first as u16) }
    }

    /// Sets whether the connection is connected: senders send only then.
    pub(super) fn set_connected(&mut self, connected: bool) {
        self.connected = connected;
        self.open_lines();
    }

    /// Executes a command. Returns its outcome as an event, if it has one, and whether the
    /// connection is still usable.
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
            // Not part of the negotiation: the connection's task has executed it.
            PeerCommand::Write(_) => return (None, true),
        };
        match result {
            Ok(event) => (Some(event), true),
            Err(error) => {
                let is_usable = !matches!(error, NegotiationError::Broken(_));
                (Some(PeerEvent::Refused { step, reason: error.to_string() }), is_usable)
            }
        }
    }

    async fn make_offer(&mut self, restart_ice: bool) -> Result<String, NegotiationError> {
        if self.offer.is_some() {
            return Err(NegotiationError::OfferStands);
        }
        let is_restart = restart_ice && self.is_negotiated();
        let options = RTCOfferOptions { ice_restart: is_restart };
        let offer = self.peer.create_offer(Some(options)).await?;
        let sdp = layout::for_other_end(&offer.sdp, &self.layout);
        let description = Description::read(&sdp)?;
        self.peer.set_local_description(offer).await?;
        self.offer = Some(description);
        if is_restart {
            self.candidates.restart();
        }
        Ok(if is_restart { sdp::without_candidates(&sdp) } else { sdp })
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
        let answer = Description::read(&sdp)?;
        answer.answers(offer)?;
        if answer.first_taken().is_none() {
            self.agreed(&answer).await;
            return Ok(());
        }
        let remote_sdp = layout::for_library(&sdp, &answer);
        let rtc_answer = RTCSessionDescription::answer(self.for_library(&remote_sdp, &answer))?;
        if let Err(error) = self.peer.set_remote_description(rtc_answer).await {
            // If the offer is still pending, webrtc-rs applied nothing of the answer.
            return Err(match self.peer.pending_local_description().await {
                Some(_) => error.into(),
                None => NegotiationError::from(error).broken(),
            });
        }
        if let Some(mut offer) = self.offer.take() {
            offer.also_rejected_by(&answer);
            self.layout = offer.sections;
        }
        // If the answer leaves the role open, this is the choice of webrtc-rs.
        self.role.get_or_insert(match answer.setup {
            Some(Setup::Passive) => Setup::Active,
            Some(Setup::Active | Setup::ActPass) | None => Setup::Passive,
        });
        self.certificate.clone_from(&answer.fingerprints);
        self.fragments = sdp::name_fragments(&remote_sdp);
        self.limits.ssrcs.name(sdp::ssrcs(&remote_sdp));
        self.agreed(&answer).await;
        self.add_candidates(&remote_sdp).await;
        Ok(())
    }

    async fn accept_offer(&mut self, sdp: String) -> Result<String, NegotiationError> {
        if self.offer.is_some() {
            return Err(NegotiationError::OfferStands);
        }
        let sdp = sdp::normalized(&sdp);
        let mut offer = Description::read(&sdp)?;
        if offer.first_taken().is_none() {
            self.agreed(&offer).await;
            return Ok(layout::nothing(&offer));
        }
        // If it were applied, ICE would connect but DTLS would not, because DTLS began with the old
        // certificate.
        if self.certificate.is_some() && self.certificate != offer.fingerprints {
            return Err(NegotiationError::AnotherConnection);
        }
        let role = self.role_after(&offer)?;
        let remote_sdp = layout::for_library(&sdp, &offer);
        let rtc_offer = RTCSessionDescription::offer(self.for_library(&remote_sdp, &offer))?;
        let answer = self.take_offer(&offer, rtc_offer).await;
        if answer.is_err() {
            let rollback = RTCSessionDescription::rollback(None)?;
            if let Err(error) = self.peer.set_remote_description(rollback).await {
                tracing::debug!(%error, "failed remote offer not rolled back");
            }
        }
        self.point_lines(|transceiver| transceiver.section.direction).await?;
        let answer = layout::for_other_end(&answer?, &offer.sections);
        offer.also_rejected_by(&Description::read(&answer)?);
        self.role = Some(role);
        self.certificate.clone_from(&offer.fingerprints);
        self.agreed(&offer).await;
        self.layout = offer.sections;
        // If all fragments are new, webrtc-rs has restarted ICE, whichever of them it uses.
        let ufrags = sdp::name_fragments(&remote_sdp);
        if !ufrags.iter().any(|ufrag| self.fragments.contains(ufrag)) {
            self.candidates.restart();
        }
        self.fragments = ufrags;
        self.limits.ssrcs.name(sdp::ssrcs(&remote_sdp));
        self.add_candidates(&remote_sdp).await;
        // webrtc-rs writes into each answer the role that it would choose in the first one.
        Ok(layout::with_setup(&answer, role))
    }

    /// The remote description as webrtc-rs gets it: without candidates, which are added one by one,
    /// and with one fingerprint, since webrtc-rs supports neither several nor other hashes.
    fn for_library(&self, remote_sdp: &str, description: &Description) -> String {
        let sdp = sdp::without_candidates(remote_sdp);
        match &description.fingerprints {
            Some(fingerprints) => {
                sdp::with_fingerprint(&sdp, &self.limits.crypto.accept(fingerprints))
            }
            None => sdp,
        }
    }

    /// Our DTLS role when this offer is answered.
    fn role_after(&self, offer: &Description) -> Result<Setup, NegotiationError> {
        let default = match self.role {
            Some(role) => role,
            // The choice of webrtc-rs.
            None if offer.is_ice_lite => Setup::Passive,
            None => Setup::Active,
        };
        let role = match offer.setup {
            Some(Setup::Active) => Setup::Passive,
            Some(Setup::Passive) => Setup::Active,
            Some(Setup::ActPass) | None => default,
        };
        match self.role {
            Some(known) if known != role => Err(NegotiationError::AnotherHandshake),
            Some(_) | None => Ok(role),
        }
    }

    /// Whether an offer of either end was answered.
    const fn is_negotiated(&self) -> bool {
        self.role.is_some()
    }

    /// Applies a remote offer and creates the answer. Each direction is what both ends want.
    ///
    /// webrtc-rs matches an offered section with one of our transceivers only if their directions
    /// fit, and otherwise makes a receiving transceiver of its own. So our directions are first set
    /// to those that match, and then to the negotiated ones. Transceivers that the remote offer
    /// created stay inactive.
    async fn take_offer(
        &self,
        offer: &Description,
        rtc_offer: RTCSessionDescription,
    ) -> Result<String, NegotiationError> {
        self.point_lines(|transceiver| transceiver.found_by(offer)).await?;
        self.peer.set_remote_description(rtc_offer).await?;
        let answer = match self.answer(offer).await {
            // The first offer has started the transports, which cannot be started again.
            Err(error) if !self.is_negotiated() => return Err(error.broken()),
            answer => answer?,
        };
        let sdp = answer.sdp.clone();
        let result = self.peer.set_local_description(answer).await;
        result.map_err(|error| NegotiationError::from(error).broken())?;
        Ok(sdp)
    }

    async fn answer(&self, offer: &Description) -> Result<RTCSessionDescription, NegotiationError> {
        self.point_lines(|transceiver| transceiver.agreed_with(offer)).await?;
        self.silence_foreign_sections().await?;
        let answer = self.peer.create_answer(None).await?;
        Description::read(&answer.sdp)?.answers(&offer.taken())?;
        Ok(answer)
    }

    async fn point_lines(&self, direction: impl Fn(&Line) -> Direction) -> Result<(), Error> {
        for one in &self.lines {
            one.section.transceiver.set_direction(library_direction(direction(one))).await?;
        }
        Ok(())
    }

    async fn silence_foreign_sections(&self) -> Result<(), Error> {
        for transceiver in self.peer.get_transceivers().await {
            let is_same = |known: &Line| known.section.transceiver.id() == transceiver.id();
            if !self.lines.iter().any(is_same) {
                transceiver.set_direction(RTCRtpTransceiverDirection::Inactive).await?;
            }
        }
        Ok(())
    }

    /// Updates the senders to what is negotiated with the `remote` description, and records the
    /// agreement.
    async fn agreed(&mut self, remote: &Description) {
        let mut agreement = Agreement::default();
        for transceiver in &mut self.lines {
            transceiver.payload_type = None;
            let Some(section) = remote.section(transceiver.kind) else {
                agreement.leave_out(transceiver.media());
                continue;
            };
            if !section.direction.sends() || !transceiver.section.direction.receives() {
                agreement.receive_no(transceiver.media());
            }
            transceiver.payload_type = transceiver.sends_with().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "negotiated codec unknown; nothing is sent");
                None
            });
            if transceiver.payload_type.is_none() {
                agreement.send_no(transceiver.media());
            }
        }
        if self.has_data && remote.section(SectionKind::Application).is_none() {
            agreement.leave_out(Media::Data);
        }
        self.news = Some(agreement);
        self.open_lines();
    }

    fn open_lines(&self) {
        for transceiver in &self.lines {
            let active = transceiver.payload_type.filter(|_| self.connected);
            let replace = |known: &mut Option<u8>| std::mem::replace(known, active) != active;
            transceiver.open.send_if_modified(replace);
        }
    }

    /// Adds the candidates of a description, by the same rule as trickled ones.
    async fn add_candidates(&mut self, sdp: &str) {
        for line in sdp::candidates(sdp) {
            self.add_candidate(Candidate { line: line.to_owned(), mid: None, index: None }).await;
        }
    }

    /// Adds a remote candidate. An invalid one is logged and dropped; the other candidates still
    /// count.
    async fn add_candidate(&mut self, candidate: Candidate) {
        let Candidate { line, mid, index } = candidate;
        // The end of candidates.
        if line.is_empty() {
            return;
        }
        let candidate = match self.candidates.take(&line, &self.limits.addresses.chosen()) {
            Ok(candidate) => candidate,
            Err(error) => {
                tracing::debug!(%error, "remote candidate rejected");
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
            tracing::debug!(%error, "remote candidate rejected");
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

    /// The direction with which webrtc-rs matches this transceiver to the offered section.
    fn found_by(&self, offer: &Description) -> Direction {
        match offer.section(self.kind).map(|section| section.direction) {
            Some(Direction::SendRecv) => Direction::SendRecv,
            Some(Direction::SendOnly) => Direction::RecvOnly,
            Some(Direction::RecvOnly) => Direction::SendOnly,
            Some(Direction::Inactive) | None => self.section.direction,
        }
    }

    /// The direction that both ends want.
    fn agreed_with(&self, offer: &Description) -> Direction {
        let (sends, receives) = match offer.section(self.kind) {
            Some(offered) => (offered.direction.receives(), offered.direction.sends()),
            // Not offered, so not negotiated: the direction stays for a later offer of ours.
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

    /// The payload type to send with, in the remote peer's numbering; `None` if nothing is sent.
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
        let mime_type = match self.kind {
            SectionKind::Audio => MIME_TYPE_OPUS,
            SectionKind::Video => MIME_TYPE_H264,
            SectionKind::Application => return Ok(None),
        };
        let codec =
            codecs.iter().find(|codec| codec.rtp_codec.mime_type.eq_ignore_ascii_case(mime_type));
        Ok(codec.map(|codec| codec.payload_type))
    }
}

const fn described(step: Step, kind: DescriptionKind, sdp: String) -> PeerEvent {
    PeerEvent::Description { step, kind, sdp }
}
