//! Explains why two peers do not reach each other, from the addresses in their candidates.

use core::net::IpAddr;

use crate::model::{ConnectionFailure, candidate_addresses};

/// The kinds of addresses in the candidates of the two ends of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reachability {
    ours: AddressKinds,
    theirs: AddressKinds,
}

/// The kinds of addresses in the candidates of one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct AddressKinds {
    ipv4: bool,
    ipv6: bool,
    loopback_ipv4: bool,
    loopback_ipv6: bool,
}

impl Reachability {
    /// Records the candidates in a local description or candidate.
    pub(super) fn note_ours(&mut self, text: &str) {
        self.ours.note(text);
    }

    /// Records the candidates in a remote description or candidate.
    pub(super) fn note_theirs(&mut self, text: &str) {
        self.theirs.note(text);
    }

    /// Why there is no connection, once both ends have sent their descriptions.
    pub(super) fn diagnosis(self) -> ConnectionFailure {
        let (ours, theirs) = (self.ours, self.theirs);
        if ours.pairs_with(theirs) {
            ConnectionFailure::NoPairAnswered
        } else if !ours.reaches_other_computers() {
            ConnectionFailure::NoLocalAddress
        } else if !theirs.reaches_other_computers() {
            ConnectionFailure::NoRemoteAddress
        } else {
            ConnectionFailure::NoCommonIpVersion
        }
    }
}

impl AddressKinds {
    fn note(&mut self, text: &str) {
        for ip in candidate_addresses(text) {
            match ip {
                IpAddr::V4(ip) if ip.is_loopback() => self.loopback_ipv4 = true,
                IpAddr::V4(_) => self.ipv4 = true,
                IpAddr::V6(ip) if ip.is_loopback() => self.loopback_ipv6 = true,
                IpAddr::V6(_) => self.ipv6 = true,
            }
        }
    }

    /// Whether there is an address that another computer could use.
    const fn reaches_other_computers(self) -> bool {
        self.ipv4 || self.ipv6
    }

    /// Whether there is a candidate pair to try.
    const fn pairs_with(self, other: Self) -> bool {
        self.ipv4 && other.ipv4
            || self.ipv6 && other.ipv6
            || self.loopback_ipv4 && other.loopback_ipv4
            || self.loopback_ipv6 && other.loopback_ipv6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(ours: &[&str], theirs: &[&str]) -> ConnectionFailure {
        let line = |ip: &str| format!("candidate:1 1 udp 2130706431 {ip} 50000 typ host");
        let mut reach = Reachability::default();
        ours.iter().for_each(|ip| reach.note_ours(&line(ip)));
        theirs.iter().for_each(|ip| reach.note_theirs(&line(ip)));
        reach.diagnosis()
    }

    #[test]
    fn pairs_that_do_not_answer_are_distinguished_from_addresses_that_do_not_pair() {
        use ConnectionFailure::{
            NoCommonIpVersion, NoLocalAddress, NoPairAnswered, NoRemoteAddress,
        };
        let cases: [(&[&str], &[&str], ConnectionFailure); 9] = [
            (&["192.168.5.7"], &["192.168.5.8"], NoPairAnswered),
            (&["127.0.0.1"], &["127.0.0.1", "192.168.5.8"], NoPairAnswered),
            (&["10.0.0.1", "2001:db8::1"], &["2001:db8::2"], NoPairAnswered),
            (&["127.0.0.1", "::1"], &["192.168.5.8"], NoLocalAddress),
            (&[], &["192.168.5.8"], NoLocalAddress),
            (&["192.168.5.7"], &["127.0.0.1", "::1"], NoRemoteAddress),
            (&["192.168.5.7"], &["0b1c-d2.local"], NoRemoteAddress),
            (&["192.168.5.7"], &[], NoRemoteAddress),
            (&["192.168.5.7"], &["2001:db8::2"], NoCommonIpVersion),
        ];
        for (ours, theirs, expected) in cases {
            assert_eq!(verdict(ours, theirs), expected, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn candidates_in_a_description_count_like_single_candidates() {
        let mut reach = Reachability::default();
        reach.note_ours("v=0\r\na=candidate:1 1 udp 1 192.168.5.7 9 typ host\r\n");
        reach.note_theirs("v=0\r\na=candidate:1 1 udp 1 192.168.5.8 9 typ host\r\n");
        assert_eq!(reach.diagnosis(), ConnectionFailure::NoPairAnswered);
    }
}
