//! The inputs of the core.

use serde::{Deserialize, Serialize};

use super::hub_news::HubNews;
use crate::model::{
    ActiveSpeaker, Command, DeviceKind, DeviceState, HubEndpoint, HubUrl, Instance,
    MicrophoneActivity, ParticipantId, PeerEvent, PeerId, PerSource, SessionId, ShownSize,
    SoundCheckStage,
};

/// An input of the core.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// A command of the user.
    Command(Command),
    /// The connection to a hub changed, or the hub sent a message.
    Hub(HubRef, HubEvent),
    /// An event of a peer connection.
    Peer(PeerId, PeerEvent),
    /// The state of a source or of the speaker changed.
    Device(DeviceKind, DeviceState),
    /// What is heard at the microphone changed. It holds until the microphone's state changes.
    MicrophoneActivity(MicrophoneActivity),
    /// Whether encoders of video are late, so that a smaller layer is the largest one.
    EncoderLate(bool),
    /// Whether the upload of this machine is full, so that those who share it get less video.
    UploadFull(bool),
    /// What the check of the user's own sound does now; `None` at its end.
    SoundCheck(Option<SoundCheckStage>),
    /// Which sources exist. Replaces the previous report; until the first report, all exist.
    SourcesAvailable(PerSource<bool>),
    /// Which local sources are displayed here (the video, the level), independent of the peer connections. Replaces the
    /// previous report.
    Preview(PerSource<bool>),
    /// Who speaks in a session.
    ActiveSpeaker(SessionId, Option<ActiveSpeaker>),
    /// At which size this program shows the videos that it receives on a peer connection; `None` for
    /// one that it wants in full size. By default it wants all so.
    Shown(PeerId, PerSource<Option<ShownSize>>),
}

/// A reference to a hub.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HubRef {
    /// The hub that the program finds or embeds on demand.
    Default,
    /// The hub at an address, from a link.
    At(HubUrl),
}

impl HubRef {
    /// The hub's address in a sentence: as it was named, otherwise as the hub reports it.
    pub(super) fn shown_url(&self, reported: Option<HubUrl>) -> Option<HubUrl> {
        match self {
            Self::At(url) => Some(url.clone()),
            Self::Default => reported,
        }
    }
}

/// An event of the connection to a hub. The connection sends `hello` and pings, and reconnects by
/// itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HubEvent {
    /// The hub sent `welcome`, for the first time or after a reconnect.
    Up {
        /// The address at which others reach it. Links start with this address.
        url: HubUrl,
        /// The endpoint at which it was reached.
        endpoint: HubEndpoint,
        /// Our participant id at this hub.
        participant: ParticipantId,
        /// This run of our program, as this hub knows it.
        instance: Instance,
        /// The name that other participants see.
        name: String,
    },
    /// The hub's address changed: links start with the new address from now on.
    AddressChanged {
        /// The address at which others reach it.
        url: HubUrl,
    },
    /// The connection was lost, or another attempt to connect failed; it is retried.
    Down {
        /// The reason, as a sentence for the user.
        reason: String,
    },
    /// How many clients use the hub that this program embeds. Replaces the previous count.
    Guests {
        /// Participants other than us that are connected and are in a session or wait for one.
        count: usize,
    },
    /// The hub reports something.
    News(HubNews),
}
