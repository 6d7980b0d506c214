//! RTCP and descriptions as they reach our code, made up by a fuzzer (`tests/fuzz`).

use std::{sync::Arc, time::Instant};

use bytes::BytesMut;
use rtc::{
    interceptor::{AttributedPacket, Packet, TaggedPacket},
    rtcp,
    sansio::Protocol,
    shared::TransportContext,
};

use super::{
    sdp::{Description, without_candidates},
    tap::{OwnStreams, SendClock, Tap},
};
use crate::media::{KeyframeRequest, SenderReports};

/// Reads datagrams of RTCP, each after its length in a byte, as one connection's.
pub fn rtcp(mut data: &[u8]) {
    let clocks = [(3, SendClock::new(48_000)), (7, SendClock::new(90_000))];
    let own = OwnStreams { video: 7, keyframes: KeyframeRequest::default(), clocks };
    let mut tap = Tap::new(own, SenderReports::default(), Arc::default());
    while let Some((length, rest)) = data.split_first() {
        let (datagram, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        data = rest;
        let Ok(packets) = rtcp::packet::unmarshal(&mut BytesMut::from(datagram)) else { continue };
        let message = AttributedPacket::new(Packet::Rtcp(packets));
        let (now, transport) = (Instant::now(), TransportContext::default());
        tap.handle_read(TaggedPacket { now, transport, message }).expect("nothing fails here");
        while tap.poll_read().is_some() {}
    }
}

/// Reads a description.
pub fn description(data: &[u8]) {
    let sdp = String::from_utf8_lossy(data);
    if let Ok(description) = Description::read(&sdp) {
        let bare = without_candidates(&sdp);
        let bare = Description::read(&bare).expect("it is no worse without candidates");
        assert_eq!(bare, description);
    }
}
