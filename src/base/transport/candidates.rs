//! Which ICE candidates of the remote peer are accepted (RFC 8445, RFC 8839).
//! A user with a session link may name any address, and webrtc-rs checks every pair of addresses
//! forty times a second for eight seconds, whatever the address is. So all candidates pass one
//! rule, those in a description as well as trickled ones, and webrtc-rs gets no candidate that has
//! not passed it.

use std::net::{IpAddr, SocketAddr};

use crate::model::MAX_CANDIDATE_BYTES;

/// Candidates that are accepted for one ICE generation. This program offers at most six; a browser
/// with two interfaces, both address families and a STUN server offers about ten.
const MAX_CANDIDATES: usize = 16;

/// Candidates per IP address: browsers open a port for each media section before the sections are
/// bundled.
const MAX_PER_ADDRESS: usize = 4;

/// The remote candidates that were accepted for the current ICE generation.
#[derive(Debug, Default)]
pub(super) struct RemoteCandidates {
    accepted: Vec<SocketAddr>,
}

/// Why a candidate is rejected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum CandidateError {
    #[error("it is longer than {MAX_CANDIDATE_BYTES} bytes")]
    TooLong,
    #[error("it is not a candidate as in RFC 8839")]
    Malformed,
    #[error("only UDP candidates of component 1 are supported")]
    NotUdp,
    #[error("its address is not unicast")]
    NotUnicast,
    #[error("its address is loopback, and this machine has other addresses")]
    Loopback,
    #[error("its address is link-local, and this machine has no such address")]
    LinkLocal,
    #[error("its address and port were accepted before")]
    Duplicate,
    #[error("{MAX_PER_ADDRESS} candidates of its address were accepted before")]
    TooManyPerAddress,
    #[error("{MAX_CANDIDATES} candidates were accepted before")]
    TooMany,
}

impl RemoteCandidates {
    /// Accepts a candidate line (`candidate:` and its fields, without `a=`) and returns it as
    /// webrtc-rs gets it. `own` are the addresses that this end has bound.
    ///
    /// # Errors
    /// [`CandidateError`] says why the candidate is rejected; other candidates are not affected.
    pub(super) fn accept(&mut self, line: &str, own: &[IpAddr]) -> Result<String, CandidateError> {
        let candidate = RemoteCandidate::check_and_parse(line)?;
        check_address(candidate.address.ip(), own)?;
        let is_same_ip = |accepted: &&SocketAddr| accepted.ip() == candidate.address.ip();
        if self.accepted.contains(&candidate.address) {
            return Err(CandidateError::Duplicate);
        }
        if self.accepted.len() == MAX_CANDIDATES {
            return Err(CandidateError::TooMany);
        }
        if self.accepted.iter().filter(is_same_ip).count() == MAX_PER_ADDRESS {
            return Err(CandidateError::TooManyPerAddress);
        }
        self.accepted.push(candidate.address);
        Ok(candidate.to_line())
    }

    /// Begins a new ICE generation: webrtc-rs has discarded all remote candidates (RFC 8445,
    /// section 2.4).
    pub(super) fn restart(&mut self) {
        self.accepted.clear();
    }
}

/// The fields of a candidate line that are used.
struct RemoteCandidate<'a> {
    foundation: &'a str,
    priority: u32,
    address: SocketAddr,
    kind: &'static str,
}

impl<'a> RemoteCandidate<'a> {
    fn check_and_parse(line: &'a str) -> Result<Self, CandidateError> {
        if line.len() > MAX_CANDIDATE_BYTES {
            return Err(CandidateError::TooLong);
        }
        Self::parse(line).ok_or(CandidateError::Malformed)?
    }

    /// `None` if a field is missing or malformed.
    fn parse(line: &'a str) -> Option<Result<Self, CandidateError>> {
        let mut fields = line.strip_prefix("candidate:")?.split_ascii_whitespace();
        let foundation = fields.next()?;
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-');
        if !(1..=32).contains(&foundation.len()) || !foundation.chars().all(is_legal) {
            return None;
        }
        let component: u16 = fields.next()?.parse().ok()?;
        let transport = fields.next()?;
        let priority = fields.next()?.parse().ok()?;
        let (address, port) = (fields.next()?, fields.next()?.parse().ok()?);
        let kind = match (fields.next()?, fields.next()?) {
            ("typ", "host") => "host",
            ("typ", "srflx") => "srflx",
            ("typ", "prflx") => "prflx",
            ("typ", "relay") => "relay",
            _ => return None,
        };
        // For TCP candidates webrtc-rs would open connections to any address they name. Component 2
        // is RTCP, which has no port of its own here (RFC 8843, section 9.1).
        if !transport.eq_ignore_ascii_case("udp") || component != 1 {
            return Some(Err(CandidateError::NotUdp));
        }
        // mDNS names, which hide a browser's addresses, are rejected: to resolve a name, a query
        // goes to the owner of that name.
        let address = SocketAddr::new(address.parse().ok()?, port);
        if port == 0 {
            return None;
        }
        Some(Ok(Self { foundation, priority, address, kind }))
    }

    /// The candidate as a new line, so that webrtc-rs parses exactly what was parsed here.
    fn to_line(&self) -> String {
        let Self { foundation, priority, address, kind } = self;
        let (ip, port) = (address.ip(), address.port());
        let related = if *kind == "host" { "" } else { " raddr 0.0.0.0 rport 0" };
        format!("candidate:{foundation} 1 udp {priority} {ip} {port} typ {kind}{related}")
    }
}

/// Checks that datagrams may be sent to an address that the remote peer has named.
///
/// Two programs on one machine offer each other that machine's own addresses, since
/// [`network::candidates`](crate::network::candidates) leaves loopback out if there is any other
/// address. Only on a machine without other addresses do both offer loopback. So a loopback
/// candidate is never needed beside others, and our datagrams would reach services that no other
/// machine can reach.
fn check_address(ip: IpAddr, own: &[IpAddr]) -> Result<(), CandidateError> {
    let is_one_machine = match ip {
        // 0/8 is this machine on this network, 240/4 is reserved and ends with the broadcast
        // address (RFC 6890).
        IpAddr::V4(ip) => !ip.is_multicast() && (1..240).contains(&ip.octets()[0]),
        // An IPv4-mapped address: no socket of ours sends there.
        IpAddr::V6(v6) => {
            !v6.is_multicast() && !v6.is_unspecified() && v6.to_ipv4_mapped().is_none()
        }
    };
    if !is_one_machine {
        return Err(CandidateError::NotUnicast);
    }
    if ip.is_loopback() && !own.iter().all(IpAddr::is_loopback) {
        return Err(CandidateError::Loopback);
    }
    match ip {
        IpAddr::V4(v4) if v4.is_link_local() && !own.iter().any(is_link_local) => {
            Err(CandidateError::LinkLocal)
        }
        // It needs a zone, which a candidate cannot carry (RFC 8839, section 5.1).
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(CandidateError::LinkLocal),
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(()),
    }
}

fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.is_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [&str; 2] = ["192.168.1.2", "2001:db8::2"];

    fn own(addresses: &[&str]) -> Vec<IpAddr> {
        addresses.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn host_line(ip: &str, port: u16) -> String {
        format!("candidate:1 1 udp 2130706431 {ip} {port} typ host")
    }

    fn accept(line: &str, own_addresses: &[&str]) -> Result<String, CandidateError> {
        RemoteCandidates::default().accept(line, &own(own_addresses))
    }

    #[test]
    fn addresses_of_other_machines_are_accepted_and_written_as_they_were_read() {
        for ip in ["192.0.2.1", "10.0.0.1", "100.64.0.1", "2001:db8::1", "fd00::1"] {
            let accepted = accept(&host_line(ip, 9), &OWN).unwrap();
            assert_eq!(accepted, host_line(ip, 9));
        }
        let chromium = "candidate:842163049 1 UDP 1677729535 192.0.2.1 50000 typ srflx \
            raddr 10.0.0.7 rport 50000 generation 0 ufrag EsAw network-cost 999";
        let accepted = "candidate:842163049 1 udp 1677729535 192.0.2.1 50000 typ srflx \
            raddr 0.0.0.0 rport 0";
        assert_eq!(accept(chromium, &OWN).as_deref(), Ok(accepted));
    }

    #[test]
    fn addresses_that_are_not_unicast_are_rejected() {
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.251",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "ff0e::1",
            "::ffff:127.0.0.1",
        ] {
            assert_eq!(accept(&host_line(ip, 9), &OWN), Err(CandidateError::NotUnicast), "{ip}");
        }
    }

    #[test]
    fn loopback_is_accepted_if_there_is_no_other_address() {
        for ip in ["127.0.0.1", "127.9.9.9", "::1"] {
            assert_eq!(accept(&host_line(ip, 9), &OWN), Err(CandidateError::Loopback), "{ip}");
            assert_eq!(accept(&host_line(ip, 9), &["127.0.0.1", "::1"]), Ok(host_line(ip, 9)));
        }
    }

    #[test]
    fn link_local_is_accepted_if_this_machine_has_such_an_address() {
        let metadata = host_line("169.254.169.254", 80);
        assert_eq!(accept(&metadata, &OWN), Err(CandidateError::LinkLocal));
        assert_eq!(accept(&metadata, &["127.0.0.1"]), Err(CandidateError::LinkLocal));
        assert_eq!(accept(&metadata, &["169.254.7.7"]), Ok(metadata.clone()));
        assert_eq!(
            accept(&host_line("fe80::1", 9), &["169.254.7.7"]),
            Err(CandidateError::LinkLocal)
        );
    }

    #[test]
    fn lines_that_are_no_udp_candidate_of_component_1_are_rejected() {
        for malformed in [
            "",
            "candidate:",
            "candidate:1 1 udp 1 192.0.2.1 9",
            "candidate:1 1 udp 1 192.0.2.1 99999 typ host",
            "candidate:1 1 udp 1 192.0.2.1 0 typ host",
            "candidate:1 1 udp 1 999.0.2.1 9 typ host",
            "candidate:1 1 udp 1 d2c1-0b.local 9 typ host",
            "candidate:1 1 udp 1 fe80::1%eth0 9 typ host",
            "candidate:1 1 udp 1 192.0.2.1 9 typ other",
            "candidate:a=b 1 udp 1 192.0.2.1 9 typ host",
            "a=candidate:1 1 udp 1 192.0.2.1 9 typ host",
        ] {
            assert_eq!(accept(malformed, &OWN), Err(CandidateError::Malformed), "{malformed}");
        }
        for other in ["1 1 tcp 1 192.0.2.1 9 typ host tcptype passive", "1 2 udp 1 ::2 9 typ host"]
        {
            let line = format!("candidate:{other}");
            assert_eq!(accept(&line, &OWN), Err(CandidateError::NotUdp), "{line}");
        }
        let long = format!("{} {}", host_line("192.0.2.1", 9), "x".repeat(MAX_CANDIDATE_BYTES));
        assert_eq!(accept(&long, &OWN), Err(CandidateError::TooLong));
    }

    #[test]
    fn an_address_and_port_is_accepted_once_whatever_its_kind() {
        let (mut remote, own) = (RemoteCandidates::default(), own(&OWN));
        assert!(remote.accept(&host_line("192.0.2.1", 9), &own).is_ok());
        let again = "candidate:2 1 udp 1 192.0.2.1 9 typ relay raddr 10.0.0.1 rport 7";
        assert_eq!(remote.accept(again, &own), Err(CandidateError::Duplicate));
        remote.restart();
        assert!(remote.accept(again, &own).is_ok(), "another generation");
    }

    #[test]
    fn candidates_are_limited_per_address_and_in_total() {
        let (mut remote, own) = (RemoteCandidates::default(), own(&OWN));
        let mut count_accepted = |ip: &str| {
            let lines = (1..=100).map(|port| host_line(ip, port));
            lines.filter(|line| remote.accept(line, &own).is_ok()).count()
        };
        assert_eq!(count_accepted("192.0.2.1"), MAX_PER_ADDRESS);
        assert_eq!(count_accepted("2001:db8::1"), MAX_PER_ADDRESS);
        let more: usize = (10..99).map(|host| count_accepted(&format!("192.0.2.{host}"))).sum();
        assert_eq!(more, MAX_CANDIDATES - 2 * MAX_PER_ADDRESS);
        assert_eq!(remote.accept(&host_line("192.0.2.200", 9), &own), Err(CandidateError::TooMany));
    }
}
