//! The SSRCs of which an authenticated packet has arrived.

use std::sync::Arc;

use rtc::{
    interceptor::Packet,
    rtcp::{receiver_report::ReceiverReport, sender_report::SenderReport},
};

use crate::transport::ssrc_limiter::SsrcLimiter;

/// Reports the SSRCs of which an authenticated packet arrived.
pub(super) struct AuthenticatedSsrcs {
    limiter: Arc<SsrcLimiter>,
    /// The SSRCs that were reported, each with whether it is of RTCP.
    marked: Vec<(u32, bool)>,
}

impl AuthenticatedSsrcs {
    pub(super) const fn new(limiter: Arc<SsrcLimiter>) -> Self {
        Self { limiter, marked: vec![] }
    }

    /// Records the SSRC of a packet. Of RTCP only reports are considered, which every peer sends.
    pub(super) fn record(&mut self, packet: &Packet) {
        let stream = match packet {
            Packet::Rtp(packet) => Some((packet.header.ssrc, false)),
            Packet::Rtcp(packets) => packets.first().and_then(|packet| {
                let any = packet.as_any();
                let sender = any.downcast_ref::<SenderReport>().map(|report| report.ssrc);
                let receiver = || any.downcast_ref::<ReceiverReport>().map(|report| report.ssrc);
                Some((sender.or_else(receiver)?, true))
            }),
            _ => None,
        };
        if let Some((ssrc, is_rtcp)) = stream.filter(|stream| !self.marked.contains(stream)) {
            self.limiter.mark_authenticated(ssrc, is_rtcp);
            // The limiter does not keep more SSRCs than that anyway.
            if self.marked.len() < 64 {
                self.marked.push((ssrc, is_rtcp));
            }
        }
    }
}
