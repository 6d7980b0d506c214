//! Explains why two peers do not reach each other, from the addresses in their candidates.

use core::net::IpAddr;

use crate::model::{ConnectionFault, candidate_addresses};

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

/// Why no packet came through, and the sentence for it without its subject.
pub(super) type Diagnosis = (ConnectionFault, &'static str);

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
    pub(super) fn diagnosis(self) -> Diagnosis {
        let (ours, theirs) = (self.ours, self.theirs);
        let fault = ConnectionFault::NoUsableAddress;
        if ours.pairs_with(theirs) {
            let why = "no candidate pair answered: a firewall may block UDP, or no network joins \
                 the two computers; allow UDP between the two, or use a network that both share";
            return (ConnectionFault::NoPairAnswered, why);
        }
        if !ours.reaches_other_computers() {
            let why = "no usable address: this computer is in no network; connect it to one that \
                 both share";
            return (fault, why);
        }
        if !theirs.reaches_other_computers() {
            let why = "no usable address: the other computer names none, as one without a network \
                 or a browser that hides its addresses does; connect it to a network that both \
                 share, or allow its browser the camera or microphone";
            return (fault, why);
        }
        let why = "no usable address: one computer has IPv4 only and the other IPv6 only; use a \
             network that gives both the same";
        (fault, why)
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

    fn verdict(ours: &[&str], theirs: &[&str]) -> Diagnosis {
        let line = |ip: &str| format!("candidate:1 1 udp 2130706431 {ip} 50000 typ host");
        let mut reach = Reachability::default();
        ours.iter().for_each(|ip| reach.note_ours(&line(ip)));
        theirs.iter().for_each(|ip| reach.note_theirs(&line(ip)));
        reach.diagnosis()
    }

    #[test]
    fn pairs_that_do_not_answer_are_distinguished_from_addresses_that_do_not_pair() {
        let (pair, address) = (ConnectionFault::NoPairAnswered, ConnectionFault::NoUsableAddress);
        let cases: [(&[&str], &[&str], ConnectionFault, &str); 9] = [
            (&["192.168.5.7"], &["192.168.5.8"], pair, "firewall"),
            (&["127.0.0.1"], &["127.0.0.1", "192.168.5.8"], pair, "firewall"),
            (&["10.0.0.1", "2001:db8::1"], &["2001:db8::2"], pair, "firewall"),
            (&["127.0.0.1", "::1"], &["192.168.5.8"], address, "this computer is in no network"),
            (&[], &["192.168.5.8"], address, "this computer is in no network"),
            (&["192.168.5.7"], &["127.0.0.1", "::1"], address, "the other computer"),
            (&["192.168.5.7"], &["0b1c-d2.local"], address, "a browser that hides"),
            (&["192.168.5.7"], &[], address, "the other computer"),
            (&["192.168.5.7"], &["2001:db8::2"], address, "IPv4 only"),
        ];
        for (ours, theirs, fault, word) in cases {
            let (found, why) = verdict(ours, theirs);
            assert_eq!(found, fault, "{ours:?} {theirs:?}: {why}");
            assert!(why.contains(word), "{word}: {why}");
        }
    }

    #[test]
    fn candidates_in_a_description_count_like_single_candidates() {
        let mut reach = Reachability::default();
        reach.note_ours("v=0\r\na=candidate:1 1 udp 1 192.168.5.7 9 typ host\r\n");
        reach.note_theirs("v=0\r\na=candidate:1 1 udp 1 192.168.5.8 9 typ host\r\n");
        assert_eq!(reach.diagnosis().0, ConnectionFault::NoPairAnswered);
    }
}
