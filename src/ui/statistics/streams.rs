//! The table of the streams of one connection: a column for each, and the rows that any of them
//! has.

use super::{bitrate, level, milliseconds};
use crate::model::{
    CodecStats, InboundRtpStats, Media, OutboundRtpStats, PlayoutStats, RemoteInboundRtpStats,
    RtcStats,
};

/// A stream, with what belongs to it.
pub(super) enum StreamColumn<'a> {
    Sent {
        stream: &'a OutboundRtpStats,
        codec: Option<&'a CodecStats>,
        /// The remote peer's report.
        report: Option<&'a RemoteInboundRtpStats>,
    },
    Received {
        stream: &'a InboundRtpStats,
        codec: Option<&'a CodecStats>,
    },
}

/// A row of the table.
pub(super) struct StreamRow {
    /// What it shows, in plain words.
    pub(super) label: &'static str,
    /// The member of webrtc-stats.
    pub(super) member: &'static str,
    /// The value of each stream.
    pub(super) values: Vec<Option<String>>,
}

/// What a row shows of a stream; `None` if the stream has no such value.
type RowValue = fn(&StreamColumn<'_>) -> Option<String>;

/// All rows: plain words, members of webrtc-stats, values.
const ROWS: [(&str, &str, RowValue); 16] = [
    ("Codec", "mimeType", codec),
    ("Bitrate", "(bytesSent, bytesReceived)", stream_bitrate),
    ("Frame size", "frameWidth, frameHeight", frame_size),
    ("Frames per second", "framesPerSecond", frame_rate),
    ("Packets", "packetsSent, packetsReceived", packets),
    ("Packets lost", "packetsLost", packets_lost),
    ("Sent again", "retransmittedPacketsSent", sent_again),
    ("Asked to send again", "nackCount", nacks),
    ("Keyframe requests", "pliCount, firCount", keyframe_requests),
    ("Round trip", "roundTripTime", round_trip),
    ("Jitter", "jitter", jitter),
    ("Delay to smooth jitter", "jitterBufferDelay", jitter_buffer),
    ("Freezes", "freezeCount, totalFreezesDuration", freezes),
    ("Sound before picture", "audioVideoOffset", sound_lead),
    ("Made up for losses", "concealedSamples", concealed),
    ("Level", "audioLevel", audio_level),
];

/// The rows of which at least one stream has a value.
pub(super) fn rows(columns: &[StreamColumn<'_>]) -> Vec<StreamRow> {
    let rows = ROWS.into_iter().map(|(label, member, value)| StreamRow {
        label,
        member,
        values: columns.iter().map(value).collect(),
    });
    rows.filter(|row| row.values.iter().any(Option::is_some)).collect()
}

impl<'a> StreamColumn<'a> {
    /// The streams of a connection: those that are sent first.
    pub(super) fn of(objects: &'a [RtcStats]) -> Vec<Self> {
        let codec = |id: &str| {
            objects.iter().find_map(|object| {
                let RtcStats::Codec(codec) = object else { return None };
                (codec.id == id).then_some(codec)
            })
        };
        let report = |id: Option<&String>| {
            objects.iter().find_map(|object| {
                let RtcStats::RemoteInboundRtp(report) = object else { return None };
                (Some(&report.id) == id).then_some(report)
            })
        };
        let sent = objects.iter().filter_map(|object| {
            let RtcStats::OutboundRtp(stream) = object else { return None };
            let codec = codec(&stream.codec_id);
            Some(StreamColumn::Sent { stream, codec, report: report(stream.remote_id.as_ref()) })
        });
        let received = objects.iter().filter_map(|object| {
            let RtcStats::InboundRtp(stream) = object else { return None };
            Some(StreamColumn::Received { stream, codec: codec(&stream.codec_id) })
        });
        sent.chain(received).collect()
    }

    pub(super) fn title(&self) -> String {
        let (direction, kind) = match self {
            Self::Sent { stream, .. } => ("Sent", stream.kind),
            Self::Received { stream, .. } => ("Received", stream.kind),
        };
        let kind = match kind {
            Media::Audio => "audio",
            Media::Video => "video",
            Media::Data => "data",
        };
        format!("{direction} {kind}")
    }

    const fn codec(&self) -> Option<&CodecStats> {
        match self {
            Self::Sent { codec, .. } | Self::Received { codec, .. } => *codec,
        }
    }

    const fn report(&self) -> Option<&RemoteInboundRtpStats> {
        match self {
            Self::Sent { report, .. } => *report,
            Self::Received { .. } => None,
        }
    }

    const fn playout(&self) -> Option<&PlayoutStats> {
        match self {
            Self::Sent { .. } => None,
            Self::Received { stream, .. } => stream.playout.as_ref(),
        }
    }
}

fn codec(column: &StreamColumn<'_>) -> Option<String> {
    let codec = column.codec()?;
    let name = codec.mime_type.split_once('/').map_or(&*codec.mime_type, |(_, name)| name);
    Some(name.to_owned())
}

fn stream_bitrate(column: &StreamColumn<'_>) -> Option<String> {
    let bits = match column {
        StreamColumn::Sent { stream, .. } => stream.bitrate,
        StreamColumn::Received { stream, .. } => stream.bitrate,
    };
    bits.map(bitrate)
}

fn frame_size(column: &StreamColumn<'_>) -> Option<String> {
    let Some(PlayoutStats::Video(video)) = column.playout() else { return None };
    Some(format!("{} × {}", video.frame_width?, video.frame_height?))
}

fn frame_rate(column: &StreamColumn<'_>) -> Option<String> {
    let rate = match column {
        StreamColumn::Sent { stream, .. } => stream.frames_per_second,
        StreamColumn::Received { stream, .. } => stream.frames_per_second,
    };
    rate.map(|rate| format!("{rate:.1}"))
}

fn packets(column: &StreamColumn<'_>) -> Option<String> {
    Some(match column {
        StreamColumn::Sent { stream, .. } => stream.packets_sent.to_string(),
        StreamColumn::Received { stream, .. } => stream.packets_received.to_string(),
    })
}

/// What is missing, and as a share: of a sent stream that of the remote peer's last report.
fn packets_lost(column: &StreamColumn<'_>) -> Option<String> {
    let (lost, share) = match column {
        StreamColumn::Sent { report, .. } => ((*report)?.packets_lost, (*report)?.fraction_lost),
        StreamColumn::Received { stream, .. } => {
            let all = stream.packets_received as i64 + stream.packets_lost;
            (stream.packets_lost, stream.packets_lost.max(0) as f64 / all.max(1) as f64)
        }
    };
    Some(format!("{lost} ({:.1} %)", share * 100.0))
}

fn sent_again(column: &StreamColumn<'_>) -> Option<String> {
    match column {
        StreamColumn::Sent { stream, .. } => Some(stream.retransmitted_packets_sent.to_string()),
        StreamColumn::Received { .. } => None,
    }
}

fn nacks(column: &StreamColumn<'_>) -> Option<String> {
    Some(match column {
        StreamColumn::Sent { stream, .. } => stream.nack_count.to_string(),
        StreamColumn::Received { stream, .. } => stream.nack_count.to_string(),
    })
}

fn keyframe_requests(column: &StreamColumn<'_>) -> Option<String> {
    let (plis, firs) = match column {
        StreamColumn::Sent { stream, .. } => (stream.pli_count, stream.fir_count),
        StreamColumn::Received { stream, .. } => (stream.pli_count, stream.fir_count),
    };
    Some((plis? + firs?).to_string())
}

fn round_trip(column: &StreamColumn<'_>) -> Option<String> {
    column.report()?.round_trip_time.map(milliseconds)
}

fn jitter(column: &StreamColumn<'_>) -> Option<String> {
    Some(milliseconds(match column {
        StreamColumn::Sent { report, .. } => (*report)?.jitter,
        StreamColumn::Received { stream, .. } => stream.jitter,
    }))
}

fn jitter_buffer(column: &StreamColumn<'_>) -> Option<String> {
    match column {
        StreamColumn::Sent { .. } => None,
        StreamColumn::Received { stream, .. } => stream.mean_jitter_buffer_delay.map(milliseconds),
    }
}

fn freezes(column: &StreamColumn<'_>) -> Option<String> {
    let Some(PlayoutStats::Video(video)) = column.playout() else { return None };
    Some(format!("{} ({:.1} s)", video.freeze_count, video.total_freezes_duration))
}

fn sound_lead(column: &StreamColumn<'_>) -> Option<String> {
    let Some(PlayoutStats::Video(video)) = column.playout() else { return None };
    video.audio_video_offset.map(|seconds| format!("{:.0} ms", seconds * 1000.0))
}

fn concealed(column: &StreamColumn<'_>) -> Option<String> {
    let Some(PlayoutStats::Audio(audio)) = column.playout() else { return None };
    let share = audio.concealed_samples as f64 / audio.total_samples_received.max(1) as f64;
    Some(format!("{:.1} %", share * 100.0))
}

fn audio_level(column: &StreamColumn<'_>) -> Option<String> {
    let Some(PlayoutStats::Audio(audio)) = column.playout() else { return None };
    Some(level(audio.audio_level))
}
