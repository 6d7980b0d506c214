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
    audio_level,
    candidates::RemoteCandidates,
    crypto::CheckedCrypto,
    red, rejected_sections,
    sdp::{self, Description, DtlsSetup, Fingerprints, SdpError, SectionKind},
    setup::{LocalTransceiver, to_rtc_direction},
    ssrc_limiter::SsrcLimiter,
    stats::ConnectionStats,
};
use crate::model::{
    Candidate, DescriptionKind, Direction, Media, NegotiatedMedia, OperationId, PeerCommand,
    PeerEvent, Source, TrackId,
};

/// The offer/answer state of one connection.
pub(super) struct Negotiation {
    peer_connection: Arc<dyn PeerConnection>,
    transceivers: Vec<NegotiatedTransceiver>,
    has_data: bool,
    /// The local offer that is not answered yet.
    pending_offer: Option<Description>,
    /// The fingerprints of the remote certificate, once negotiated.
    remote_fingerprints: Option<Fingerprints>,
    /// Our DTLS role, once negotiated. It does not change any more (RFC 8842, section 5.3).
    dtls_role: Option<DtlsSetup>,
    /// All negotiated media sections, rejected ones included: they keep their positions.
    sections: Vec<sdp::MediaSection>,
    /// The latest agreement, if it was not reported yet.
    unreported: Option<NegotiatedMedia>,
    is_connected: bool,
    limits: RemoteLimits,
    /// The remote candidates of this ICE generation.
    remote_candidates: RemoteCandidates,
    /// The username fragments of the remote ICE credentials.
    remote_ufrags: Vec<String>,
}

/// The objects that limit and check remote descriptions and candidates.
pub(super) struct RemoteLimits {
    /// The addresses of our sockets.
    pub(super) addresses: HostAddresses,
    /// Records the SSRCs that remote descriptions announce.
    pub(super) ssrc_limiter: Arc<SsrcLimiter>,
    /// Checks the remote certificate.
    pub(super) crypto: Arc<CheckedCrypto>,
    /// Records the types of the remote candidates.
    pub(super) stats: Arc<ConnectionStats>,
}

/// The transceiver of an audio or video section, with its negotiated state.
pub(super) struct NegotiatedTransceiver {
    pub(super) source: Source,
    pub(super) local: LocalTransceiver,
    /// The payload type to send with; `None` unless the negotiated direction sends.
    pub(super) payload_type: Option<u8>,
    /// The same while the connection is connected, else `None`.
    pub(super) active_payload_type: watch::Sender<Option<u8>>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NegotiationError {
    #[error("a local offer is pending")]
    OfferPending,
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
    Unrecoverable(Box<Self>),
}

impl NegotiationError {
    fn unrecoverable(self) -> Self {
        Self::Unrecoverable(Box::new(self))
    }
}

impl Negotiation {
    pub(super) fn new(
        peer_connection: Arc<dyn PeerConnection>,
        transceivers: Vec<NegotiatedTransceiver>,
        has_data: bool,
        limits: RemoteLimits,
    ) -> Self {
        Self {
            peer_connection,
            transceivers,
            has_data,
            pending_offer: None,
            remote_fingerprints: None,
            dtls_role: None,
            sections: vec![],
            unreported: None,
            is_connected: false,
            limits,
            remote_candidates: RemoteCandidates::default(),
            remote_ufrags: vec![],
        }
    }

    /// Takes the agreement that was reached since the last call, if any.
    pub(super) const fn take_agreement(&mut self) -> Option<NegotiatedMedia> {
        self.unreported.take()
    }

    /// A local candidate, for the section whose transport carries all sections (RFC 8843, section
    /// 7).
    pub(super) fn local_candidate(&self, line: String) -> Candidate {
        let sections = self.pending_offer.as_ref().map_or(&self.sections, |offer| &offer.sections);
        let first = sections.iter().position(|section| section.is_accepted).unwrap_or(0);
        let mid = sections.get(first).map(|section| section.mid.clone());
        Candidate { line, mid, index: Some(first as u16) }
    }

    /// Sets whether the connection is connected: senders send only then.
    pub(super) fn set_connected(&mut self, connected: bool) {
        self.is_connected = connected;
        self.update_senders();
    }

    /// Executes a command. Returns its outcome as an event, if it has one, and whether the
    /// connection is still usable.
    pub(super) async fn execute(&mut self, command: PeerCommand) -> (Option<PeerEvent>, bool) {
        let (operation, result) = match command {
            PeerCommand::MakeOffer { operation, restart_ice } => {
                let sdp = self.make_offer(restart_ice).await;
                (
                    operation,
                    sdp.map(|sdp| description_event(operation, DescriptionKind::Offer, sdp)),
                )
            }
            PeerCommand::Rollback { operation } => {
                (operation, self.roll_back().await.map(|()| PeerEvent::Applied { operation }))
            }
            PeerCommand::AcceptOffer { operation, sdp } => {
                let sdp = self.accept_offer(sdp).await;
                (
                    operation,
                    sdp.map(|sdp| description_event(operation, DescriptionKind::Answer, sdp)),
                )
            }
            PeerCommand::AcceptAnswer { operation, sdp } => (
                operation,
                self.accept_answer(sdp).await.map(|()| PeerEvent::Applied { operation }),
            ),
            PeerCommand::AddCandidate(candidate) => {
                self.add_candidate(candidate).await;
                return (None, true);
            }
            // Not part of the negotiation: the connection's task has executed it.
            PeerCommand::SendChannelMessage(_) => return (None, true),
        };
        match result {
            Ok(event) => (Some(event), true),
            Err(error) => {
                let is_usable = !matches!(error, NegotiationError::Unrecoverable(_));
                (Some(PeerEvent::Failed { operation, reason: error.to_string() }), is_usable)
            }
        }
    }

    async fn make_offer(&mut self, restart_ice: bool) -> Result<String, NegotiationError> {
        if self.pending_offer.is_some() {
            return Err(NegotiationError::OfferPending);
        }
        let is_restart = restart_ice && self.is_negotiated();
        let options = RTCOfferOptions { ice_restart: is_restart };
        let offer = self.peer_connection.create_offer(Some(options)).await?;
        let sdp = rejected_sections::with_rejected(&offer.sdp, &self.sections);
        let description = Description::read(&sdp)?;
        self.peer_connection.set_local_description(offer).await?;
        self.pending_offer = Some(description);
        if is_restart {
            self.remote_candidates.restart();
        }
        let sdp = red::preferred(&sdp);
        Ok(if is_restart { sdp::without_candidates(&sdp) } else { sdp })
    }

    async fn roll_back(&mut self) -> Result<(), NegotiationError> {
        if self.pending_offer.is_none() {
            return Err(NegotiationError::NoOffer);
        }
        self.peer_connection.set_local_description(RTCSessionDescription::rollback(None)?).await?;
        self.pending_offer = None;
        Ok(())
    }

    async fn accept_answer(&mut self, sdp: String) -> Result<(), NegotiationError> {
        let offer = self.pending_offer.as_ref().ok_or(NegotiationError::NoOffer)?;
        let sdp = sdp::normalize(&sdp);
        let answer = Description::read(&sdp)?;
        answer.check_answers(offer)?;
        if answer.first_accepted().is_none() {
            self.apply_agreement(&answer).await;
            return Ok(());
        }
        let remote_sdp = rejected_sections::without_rejected(&sdp, &answer);
        let rtc_answer = RTCSessionDescription::answer(self.for_webrtc_rs(&remote_sdp, &answer))?;
        if let Err(error) = self.peer_connection.set_remote_description(rtc_answer).await {
            // If the offer is still pending, webrtc-rs applied nothing of the answer.
            return Err(match self.peer_connection.pending_local_description().await {
                Some(_) => error.into(),
                None => NegotiationError::from(error).unrecoverable(),
            });
        }
        if let Some(mut offer) = self.pending_offer.take() {
            offer.apply_rejections(&answer);
            self.sections = offer.sections;
        }
        // If the answer leaves the role open, this is the choice of webrtc-rs.
        self.dtls_role.get_or_insert(match answer.setup {
            Some(DtlsSetup::Passive) => DtlsSetup::Active,
            Some(DtlsSetup::Active | DtlsSetup::ActPass) | None => DtlsSetup::Passive,
        });
        self.remote_fingerprints.clone_from(&answer.fingerprints);
        self.remote_ufrags = sdp::ufrags(&remote_sdp);
        self.limits.ssrc_limiter.announce(sdp::ssrcs(&remote_sdp));
        self.limits.stats.opus().read(&remote_sdp);
        self.apply_agreement(&answer).await;
        self.add_candidates(&remote_sdp).await;
        Ok(())
    }

    async fn accept_offer(&mut self, sdp: String) -> Result<String, NegotiationError> {
        if self.pending_offer.is_some() {
            return Err(NegotiationError::OfferPending);
        }
        let sdp = sdp::normalize(&sdp);
        let mut offer = Description::read(&sdp)?;
        if offer.first_accepted().is_none() {
            self.apply_agreement(&offer).await;
            return Ok(rejected_sections::reject_all(&offer));
        }
        // If it were applied, ICE would connect but DTLS would not, because DTLS began with the old
        // certificate.
        if self.remote_fingerprints.is_some() && self.remote_fingerprints != offer.fingerprints {
            return Err(NegotiationError::AnotherConnection);
        }
        let role = self.dtls_role_for(&offer)?;
        let remote_sdp = rejected_sections::without_rejected(&sdp, &offer);
        let rtc_offer = RTCSessionDescription::offer(self.for_webrtc_rs(&remote_sdp, &offer))?;
        let answer = self.apply_offer(&offer, rtc_offer).await;
        if answer.is_err() {
            let rollback = RTCSessionDescription::rollback(None)?;
            if let Err(error) = self.peer_connection.set_remote_description(rollback).await {
                tracing::debug!(%error, "failed remote offer not rolled back");
            }
        }
        self.set_directions(|transceiver| transceiver.local.direction).await?;
        let answer = rejected_sections::with_rejected(&answer?, &offer.sections);
        offer.apply_rejections(&Description::read(&answer)?);
        self.dtls_role = Some(role);
        self.remote_fingerprints.clone_from(&offer.fingerprints);
        self.apply_agreement(&offer).await;
        self.sections = offer.sections;
        // If all fragments are new, webrtc-rs has restarted ICE, whichever of them it uses.
        let ufrags = sdp::ufrags(&remote_sdp);
        if !ufrags.iter().any(|ufrag| self.remote_ufrags.contains(ufrag)) {
            self.remote_candidates.restart();
        }
        self.remote_ufrags = ufrags;
        self.limits.ssrc_limiter.announce(sdp::ssrcs(&remote_sdp));
        self.limits.stats.opus().read(&remote_sdp);
        self.add_candidates(&remote_sdp).await;
        // webrtc-rs writes into each answer the role that it would choose in the first one.
        Ok(rejected_sections::with_setup(&answer, role))
    }

    /// The remote description as webrtc-rs gets it: without candidates, which are added one by one,
    /// and with one fingerprint, since webrtc-rs supports neither several nor other hashes.
    fn for_webrtc_rs(&self, remote_sdp: &str, description: &Description) -> String {
        let sdp = sdp::without_candidates(remote_sdp);
        match &description.fingerprints {
            Some(fingerprints) => {
                sdp::with_fingerprint(&sdp, &self.limits.crypto.set_fingerprints(fingerprints))
            }
            None => sdp,
        }
    }

    /// Our DTLS role when this offer is answered.
    fn dtls_role_for(&self, offer: &Description) -> Result<DtlsSetup, NegotiationError> {
        let default = match self.dtls_role {
            Some(role) => role,
            // The choice of webrtc-rs.
            None if offer.is_ice_lite => DtlsSetup::Passive,
            None => DtlsSetup::Active,
        };
        let role = match offer.setup {
            Some(DtlsSetup::Active) => DtlsSetup::Passive,
            Some(DtlsSetup::Passive) => DtlsSetup::Active,
            Some(DtlsSetup::ActPass) | None => default,
        };
        match self.dtls_role {
            Some(known) if known != role => Err(NegotiationError::AnotherHandshake),
            Some(_) | None => Ok(role),
        }
    }

    /// Whether an offer of either end was answered.
    const fn is_negotiated(&self) -> bool {
        self.dtls_role.is_some()
    }

    /// Applies a remote offer and creates the answer. Each direction is what both ends want.
    ///
    /// webrtc-rs matches an offered section with one of our transceivers only if their directions
    /// fit, and otherwise makes a receiving transceiver of its own. So our directions are first set
    /// to those that match, and then to the negotiated ones. Transceivers that the remote offer
    /// created stay inactive.
    async fn apply_offer(
        &self,
        offer: &Description,
        rtc_offer: RTCSessionDescription,
    ) -> Result<String, NegotiationError> {
        self.set_directions(|transceiver| transceiver.matching_direction(offer)).await?;
        self.peer_connection.set_remote_description(rtc_offer).await?;
        let answer = match self.create_answer(offer).await {
            // The first offer has started the transports, which cannot be started again.
            Err(error) if !self.is_negotiated() => return Err(error.unrecoverable()),
            answer => answer?,
        };
        let sdp = red::preferred(&answer.sdp);
        let result = self.peer_connection.set_local_description(answer).await;
        result.map_err(|error| NegotiationError::from(error).unrecoverable())?;
        Ok(sdp)
    }

    async fn create_answer(
        &self,
        offer: &Description,
    ) -> Result<RTCSessionDescription, NegotiationError> {
        self.set_directions(|transceiver| transceiver.negotiated_direction(offer)).await?;
        self.deactivate_foreign_transceivers().await?;
        let answer = self.peer_connection.create_answer(None).await?;
        Description::read(&answer.sdp)?.check_answers(&offer.accepted())?;
        Ok(answer)
    }

    async fn set_directions(
        &self,
        direction: impl Fn(&NegotiatedTransceiver) -> Direction,
    ) -> Result<(), Error> {
        for one in &self.transceivers {
            one.local.transceiver.set_direction(to_rtc_direction(direction(one))).await?;
        }
        Ok(())
    }

    async fn deactivate_foreign_transceivers(&self) -> Result<(), Error> {
        for transceiver in self.peer_connection.get_transceivers().await {
            let is_same =
                |known: &NegotiatedTransceiver| known.local.transceiver.id() == transceiver.id();
            if !self.transceivers.iter().any(is_same) {
                transceiver.set_direction(RTCRtpTransceiverDirection::Inactive).await?;
            }
        }
        Ok(())
    }

    /// Updates the senders to what is negotiated with the `remote` description, and records the
    /// agreement.
    async fn apply_agreement(&mut self, remote: &Description) {
        let mut agreement = NegotiatedMedia::default();
        for transceiver in &mut self.transceivers {
            transceiver.payload_type = None;
            let Some(section) = remote.section_of(transceiver.source) else {
                agreement.leave_out(transceiver.media());
                continue;
            };
            agreement.tracks[transceiver.source] = TrackId::new(&section.mid);
            if !section.direction.sends() || !transceiver.local.direction.receives() {
                agreement.disable_receiving(transceiver.media());
            }
            transceiver.payload_type =
                transceiver.negotiated_payload_type().await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "negotiated codec unknown; nothing is sent");
                    None
                });
            if transceiver.payload_type.is_none() {
                agreement.disable_sending(transceiver.media());
            }
        }
        if self.has_data && remote.accepted_section(SectionKind::Application).is_none() {
            agreement.leave_out(Media::Data);
        }
        self.unreported = Some(agreement);
        self.update_senders();
    }

    fn update_senders(&self) {
        for transceiver in &self.transceivers {
            let active = transceiver.payload_type.filter(|_| self.is_connected);
            let replace = |known: &mut Option<u8>| std::mem::replace(known, active) != active;
            transceiver.active_payload_type.send_if_modified(replace);
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
        let candidate = match self.remote_candidates.accept(&line, &self.limits.addresses.chosen())
        {
            Ok(candidate) => candidate,
            Err(error) => {
                tracing::debug!(%error, "remote candidate rejected");
                return;
            }
        };
        self.limits.stats.on_remote_candidate(&candidate);
        let init = RTCIceCandidateInit {
            candidate,
            sdp_mid: mid,
            sdp_mline_index: index,
            ..RTCIceCandidateInit::default()
        };
        if let Err(error) = self.peer_connection.add_ice_candidate(init).await {
            tracing::debug!(%error, "remote candidate rejected");
        }
    }
}

impl NegotiatedTransceiver {
    const fn media(&self) -> Media {
        self.source.media()
    }

    /// The direction with which webrtc-rs matches this transceiver to the offered section.
    fn matching_direction(&self, offer: &Description) -> Direction {
        match offer.section_of(self.source).map(|section| section.direction) {
            Some(Direction::SendRecv) => Direction::SendRecv,
            Some(Direction::SendOnly) => Direction::RecvOnly,
            Some(Direction::RecvOnly) => Direction::SendOnly,
            Some(Direction::Inactive) | None => self.local.direction,
        }
    }

    /// The direction that both ends want.
    fn negotiated_direction(&self, offer: &Description) -> Direction {
        let (sends, receives) = match offer.section_of(self.source) {
            Some(offered) => (offered.direction.receives(), offered.direction.sends()),
            // Not offered, so not negotiated: the direction stays for a later offer of ours.
            None => return self.local.direction,
        };
        let own = self.local.direction;
        match (own.sends() && sends, own.receives() && receives) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::RecvOnly,
            (false, false) => Direction::Inactive,
        }
    }

    /// The payload type to send with, in the remote peer's numbering; `None` if nothing is sent.
    async fn negotiated_payload_type(&self) -> Result<Option<u8>, Error> {
        let direction = self.local.transceiver.current_direction().await?;
        let sends = matches!(
            direction,
            RTCRtpTransceiverDirection::Sendrecv | RTCRtpTransceiverDirection::Sendonly
        );
        let Some(sender) = self.local.transceiver.sender().await?.filter(|_| sends) else {
            return Ok(None);
        };
        let parameters = sender.get_parameters().await?.rtp_parameters;
        let codecs = parameters.codecs;
        let mime_type = match self.media() {
            Media::Audio => MIME_TYPE_OPUS,
            Media::Video => MIME_TYPE_H264,
            Media::Data => return Ok(None),
        };
        if let Some(track) = &self.local.track {
            track.stream.redundancy.set_payload_type(red::payload_type(&codecs));
            let extensions = parameters.header_extensions;
            track.stream.level.set_id(audio_level::extension_id(&extensions));
        }
        let codec =
            codecs.iter().find(|codec| codec.rtp_codec.mime_type.eq_ignore_ascii_case(mime_type));
        Ok(codec.map(|codec| codec.payload_type))
    }
}

const fn description_event(
    operation: OperationId,
    kind: DescriptionKind,
    sdp: String,
) -> PeerEvent {
    PeerEvent::LocalDescription { operation, kind, sdp }
}
