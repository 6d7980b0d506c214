//! The header extensions with which receivers estimate or report the bandwidth.

use bytes::{Bytes, BytesMut};
use rtc::{interceptor::StreamInfo, rtp};

use super::{SEND_TIME_URI, TRANSPORT_NUMBER_URI};
use crate::model::MediaTime;

/// Bytes that are allocated at once: those of some hundred packets.
const CHUNK: usize = 1024;

/// What is negotiated about a stream that this end sends, and about its RTX stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::transport) struct StreamExtensions {
    pub(in crate::transport) ssrc: u32,
    rtx_ssrc: Option<u32>,
    /// The id of the transport-wide sequence number.
    number_id: Option<u8>,
    /// The id of the time of sending.
    send_time_id: Option<u8>,
}

impl StreamExtensions {
    pub(super) fn new(info: &StreamInfo) -> Self {
        let id = |uri| {
            let mut extensions = info.rtp_header_extensions.iter();
            let found = extensions.find(|one| one.uri == uri)?;
            u8::try_from(found.id).ok().filter(|id| (1..15).contains(id))
        };
        let has_feedback = info.rtcp_feedback.iter().any(|one| one.typ == "transport-cc");
        Self {
            ssrc: info.ssrc,
            rtx_ssrc: info.payload_type_rtx.and(info.ssrc_rtx),
            number_id: id(TRANSPORT_NUMBER_URI).filter(|_| has_feedback),
            send_time_id: id(SEND_TIME_URI),
        }
    }

    /// Whether packets with that SSRC are of this stream, or sent again for it.
    pub(super) fn has(&self, ssrc: u32) -> bool {
        self.ssrc == ssrc || self.rtx_ssrc == Some(ssrc)
    }

    /// Writes the transport-wide sequence number, or, where none is negotiated, the time of
    /// sending. Returns whether the packet has the number.
    pub(super) fn write(
        &self,
        header: &mut rtp::Header,
        number: u64,
        values: &mut ExtensionValues,
        now: MediaTime,
    ) -> bool {
        let is_numbered = self.number_id.is_some();
        let (id, value) = match (self.number_id, self.send_time_id) {
            (Some(id), _) => (id, values.take(&(number as u16).to_be_bytes())),
            (None, Some(id)) => (id, values.take(&absolute_send_time(now))),
            (None, None) => return false,
        };
        header.set_extension(id, value).is_ok() && is_numbered
    }
}

/// The time of sending in seconds, modulo 64, with 6 bits before the point and 18 after it.
fn absolute_send_time(time: MediaTime) -> [u8; 3] {
    let ticks = (u128::from(time.as_micros()) << 18) / 1_000_000;
    let [.., high, middle, low] = ticks.to_be_bytes();
    [high, middle, low]
}

/// Makes the values of extensions. Many share an allocation.
#[derive(Debug, Default)]
pub(super) struct ExtensionValues(BytesMut);

impl ExtensionValues {
    fn take(&mut self, value: &[u8]) -> Bytes {
        if self.0.capacity() < value.len() {
            self.0 = BytesMut::with_capacity(CHUNK);
        }
        self.0.extend_from_slice(value);
        self.0.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use rtc::interceptor::{RTCPFeedback, RTPHeaderExtension};

    use super::*;

    fn info(uris: &[&str], feedback: &str) -> StreamInfo {
        let extension = |(at, uri): (usize, &&str)| RTPHeaderExtension {
            uri: (*uri).to_owned(),
            id: at as u16 + 3,
        };
        StreamInfo {
            ssrc: 7,
            rtp_header_extensions: uris.iter().enumerate().map(extension).collect(),
            rtcp_feedback: vec![RTCPFeedback {
                typ: feedback.to_owned(),
                parameter: String::new(),
            }],
            ..StreamInfo::default()
        }
    }

    fn written(info: &StreamInfo) -> (bool, Vec<(u8, Vec<u8>)>) {
        let (mut header, mut values) = (rtp::Header::default(), ExtensionValues::default());
        // 65.25 seconds.
        let now = MediaTime::from_micros(65_250_000);
        let is_numbered = StreamExtensions::new(info).write(&mut header, 65_538, &mut values, now);
        let extensions = header.extensions.iter().map(|one| (one.id, one.payload.to_vec()));
        (is_numbered, extensions.collect())
    }

    #[test]
    fn a_packet_has_the_transport_wide_number_or_else_the_time_of_sending() {
        let both = [SEND_TIME_URI, TRANSPORT_NUMBER_URI];
        assert_eq!(written(&info(&both, "transport-cc")), (true, vec![(4, vec![0, 2])]));
        let time = vec![0b0000_0101, 0, 0];
        assert_eq!(written(&info(&both, "nack")), (false, vec![(3, time.clone())]));
        assert_eq!(written(&info(&both[..1], "transport-cc")), (false, vec![(3, time)]));
        assert_eq!(written(&info(&[], "transport-cc")), (false, vec![]));
    }

    #[test]
    fn values_share_allocations_and_stay_what_they_were() {
        let mut values = ExtensionValues::default();
        let taken: Vec<_> = (0..2000_u16).map(|n| values.take(&n.to_be_bytes())).collect();
        assert!(taken.iter().zip(0_u16..).all(|(value, n)| value[..] == n.to_be_bytes()));
        let is_adjacent = |pair: &&[Bytes]| pair[0].as_ptr().wrapping_add(2) == pair[1].as_ptr();
        assert!(taken.windows(2).filter(is_adjacent).count() > 1900);
    }
}
