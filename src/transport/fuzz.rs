//! RTCP and descriptions as they reach our code, made up by a fuzzer (`tests/fuzz`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use rtc::{
    interceptor::{Attribute, AttributedPacket, Packet, TaggedPacket},
    rtcp, rtp,
    sansio::Protocol,
    shared::{TransportContext, marshal::Unmarshal},
};

use super::{
    layout,
    sdp::{self, Description},
    ssrcs::Ssrcs,
    tap::{OwnStreams, SendClock, Tap},
};
use crate::media::{KeyframeRequest, SenderReports};

/// Passes datagrams through one connection's tap: each comes after two bytes, three bits for what it
/// is and thirteen for its length.
pub fn rtcp(mut data: &[u8]) {
    let clocks = [(3, SendClock::new(48_000)), (7, SendClock::new(90_000))];
    let own = OwnStreams { video: 7, keyframes: KeyframeRequest::default(), clocks };
    let mut tap = Tap::new(own, SenderReports::default(), Arc::default(), Arc::new(Ssrcs::new()));
    let mut now = Instant::now();
    while let Some(([high, low], rest)) = data.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high & 0x1f, *low]));
        let (datagram, rest) = rest.split_at(length.min(rest.len()));
        data = rest;
        let what = high >> 5;
        let mut bytes = BytesMut::from(datagram);
        let packet = match what {
            // RTCP that comes in, and that leaves.
            0..=4 => rtcp::packet::unmarshal(&mut bytes).ok().map(Packet::Rtcp),
            // RTP that leaves, for the first time and again.
            5 | 6 => rtp::Packet::unmarshal(&mut bytes).ok().map(Packet::Rtp),
            _ => {
                now += Duration::from_millis(length as u64);
                tap.handle_timeout(now).expect("nothing fails here");
                None
            }
        };
        if let Some(packet) = packet {
            let mut message = AttributedPacket::new(packet);
            if what == 6 {
                message.add(Attribute::Retransmission);
            }
            let tagged = TaggedPacket { now, transport: TransportContext::default(), message };
            let done = if what < 4 { tap.handle_read(tagged) } else { tap.handle_write(tagged) };
            done.expect("nothing fails here");
        }
        while tap.poll_read().is_some() {}
        while tap.poll_write().is_some() {}
    }
}

/// Reads a description.
pub fn description(data: &[u8]) {
    let sdp = sdp::normalized(&String::from_utf8_lossy(data));
    if let Ok(description) = Description::read(&sdp) {
        let bare = sdp::without_candidates(&sdp);
        assert_eq!(sdp::candidates(&bare).count(), 0);
        let bare = Description::read(&bare).expect("it is no worse without candidates");
        assert_eq!(bare, description);
        if description.first_taken().is_some() {
            let taken = layout::for_library(&sdp, &description);
            let taken = Description::read(&taken).expect("it is no worse without the others");
            assert_eq!(taken, description.taken());
        }
        let whole = layout::for_other_end(&sdp, &description.sections);
        let whole = Description::read(&whole).expect("it has the same sections");
        whole.answers(&description).expect("in the same order");
    }
}
