//! Values with units, and all plain data that crosses a module border. Names no clock, thread or
//! socket.

mod audio_layer;
mod call_quality;
mod channel;
mod chat;
mod command;
mod data_use;
mod event;
mod failure;
#[cfg(any(feature = "testing", test))]
pub mod fixtures;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod ice;
mod ids;
mod kind;
mod layer;
mod lenient_list;
mod link;
mod name;
mod participant_list;
mod peer;
mod redaction;
mod rtc_rates;
mod rtc_stats;
mod signal;
mod snapshot;
mod sound_check;
mod source;
mod stats;
mod target;
mod text;
mod token_bucket;
mod track;
mod units;
mod voice_processing;
mod wanted;

pub use audio_layer::AudioLayer;
pub use call_quality::{CallQuality, QualityCause, QualityLevel, QualityMonitor, QualityProblem};
pub use channel::{DataChannelKind, PerChannel};
pub use chat::{ChatMessage, ChatText, MAX_CHAT_BYTES, MAX_TEXT_BYTES, TextError};
pub use command::{Command, Departure, JoinTarget, MuteSwitch, OpenRequest};
pub use data_use::DataUse;
pub use event::{EndReason, Event};
pub use failure::{
    ChatFailure, ConnectionFailure, ConnectionFault, Failure, FailureCause, FailureCode,
    HubFailure, SessionFailure,
};
pub use ice::candidate_addresses;
pub use ids::{IdError, Instance, ParticipantId, PeerId, Secret, SessionId};
pub use kind::{Direction, KindError, Media, MediaSet, Role, SessionKind, Topology};
pub use layer::{Layer, LayerRates, halved, usual_bitrate};
pub use link::{HUB_PORT, HubEndpoint, HubOwner, HubUrl, LinkError, SessionLink};
pub use name::{clean_name, confusable, guest_name, guest_number};
pub use participant_list::ParticipantList;
pub use peer::{
    Candidate, DescriptionKind, NegotiatedMedia, OperationId, PeerCommand, PeerEvent, PeerMedia,
    PeerState,
};
pub use redaction::{redact, redact_text};
pub use rtc_rates::RtcRates;
pub use rtc_stats::{
    AudioPlayoutStats, CandidatePairStats, CandidateStats, CandidateType, CodecStats,
    DtlsTransportState, IceTransportState, InboundRtpStats, JitterBufferStats, MediaSourceStats,
    OutboundRtpStats, PlayoutStats, QualityLimitation, RemoteInboundRtpStats,
    RemoteOutboundRtpStats, RtcStats, TransportStats, VideoPlayoutStats,
};
pub use signal::{
    ClientMessage, CloseReason, ErrorCode, HubMessage, LeaveReason, MAX_CANDIDATE_BYTES,
    MAX_HUB_MESSAGE_BYTES, MAX_MESSAGE_BYTES, MAX_NAME_CHARS, MAX_SDP_BYTES, Member, PROTOCOL,
    Payload, Presence, RemovedMember, SignalPayload,
};
pub use snapshot::{
    ActiveSpeaker, DepartureStatus, DeviceState, Enabled, HubState, HubStatus, ParticipantState,
    ParticipantStatus, RemovedParticipant, SessionState, SessionStatus, Snapshot,
};
pub use sound_check::{SoundCheck, SoundCheckStage};
pub use source::{DeviceKind, PerDevice, PerSource, Source};
pub use stats::{
    AudioStats, Counts, Latency, ParticipantStats, Retransmissions, SessionStats, Stats, VideoStats,
};
pub use target::{parse_own_id, parse_target};
pub use text::{changes_text_direction, clean_sentence};
pub use token_bucket::{TimePoint, TokenBucket, TokenRate};
pub use track::{MAX_MIX_BYTES, MAX_TRACK_ID_BYTES, MAX_TRACKS, MixId, Track, TrackId, TrackList};
pub use units::{Bitrate, BitrateError, MediaTime, Size};
pub use voice_processing::{
    AudioContent, MicrophoneActivity, Processing, VoiceChoice, VoiceProcessing,
};
pub use wanted::{ShownSize, WantedTrack, WantedTracks};
