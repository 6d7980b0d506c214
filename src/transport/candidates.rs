//! Which of the other end's ICE candidates are taken (RFC 8445, RFC 8839).
//!
//! Whoever holds a link may name any address, and the library checks every pair of addresses
//! forty times a second for eight seconds, whatever the address is. So candidates pass one rule,
//! those in a description and those that come later alike, and the library gets none but through
//! it.

use std::net::{IpAddr, SocketAddr};

use crate::model::MAX_CANDIDATE_BYTES;

/// Candidates taken for one ICE generation. Our own ends offer six at most; a browser with two
/// interfaces, both families and a STUN server some ten.
const MAX_CANDIDATES: usize = 16;

/// Candidates of one IP address: browsers open a port for each section before they are bundled.
const MAX_PER_ADDRESS: usize = 4;

/// Candidates that were taken for the current ICE generation.
#[derive(Debug, Default)]
pub(super) struct RemoteCandidates {
    taken: Vec<SocketAddr>,
}

/// Why a candidate is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum CandidateError {
    #[error("it is too long")]
    TooLong,
    #[error("it is no candidate of RFC 8839")]
    Malformed,
    #[error("it is not for RTP over UDP, which is all that is used")]
    NotUdp,
    #[error("its address is not that of one machine")]
    NotUnicast,
    #[error("its address is of this machine alone, which has others")]
    Loopback,
    #[error("its address is of one link, and there is none here")]
    LinkLocal,
    #[error("its address and port are known")]
    Known,
    #[error("there are enough of its address")]
    PerAddress,
    #[error("there are enough")]
    Enough,
}

impl RemoteCandidates {
    /// A candidate line (`candidate:…`, without `a=`) as the library is to get it, if it is taken.
    /// `own` are the addresses that this end has bound.
    ///
    /// # Errors
    /// [`CandidateError`] says why it is not taken; it costs no more than that candidate.
    pub(super) fn take(&mut self, line: &str, own: &[IpAddr]) -> Result<String, CandidateError> {
        let candidate = RemoteCandidate::read(line)?;
        check_address(candidate.address.ip(), own)?;
        let is_same_ip = |known: &&SocketAddr| known.ip() == candidate.address.ip();
        if self.taken.contains(&candidate.address) {
            return Err(CandidateError::Known);
        }
        if self.taken.len() == MAX_CANDIDATES {
            return Err(CandidateError::Enough);
        }
        if self.taken.iter().filter(is_same_ip).count() == MAX_PER_ADDRESS {
            return Err(CandidateError::PerAddress);
        }
        self.taken.push(candidate.address);
        Ok(candidate.write())
    }

    /// Begins another ICE generation: the library has forgotten all remote candidates (RFC 8445,
    /// section 2.4).
    pub(super) fn restart(&mut self) {
        self.taken.clear();
    }
}

/// What of a candidate line is used.
struct RemoteCandidate<'a> {
    foundation: &'a str,
    priority: u32,
    address: SocketAddr,
    kind: &'static str,
}

impl<'a> RemoteCandidate<'a> {
    fn read(line: &'a str) -> Result<Self, CandidateError> {
        if line.len() > MAX_CANDIDATE_BYTES {
            return Err(CandidateError::TooLong);
        }
        Self::parse(line).ok_or(CandidateError::Malformed)?
    }

    /// `None` if a part is missing or is not what it should be.
    fn parse(line: &'a str) -> Option<Result<Self, CandidateError>> {
        let mut words = line.strip_prefix("candidate:")?.split_ascii_whitespace();
        let foundation = words.next()?;
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-');
        if !(1..=32).contains(&foundation.len()) || !foundation.chars().all(is_legal) {
            return None;
        }
        let component: u16 = words.next()?.parse().ok()?;
        let transport = words.next()?;
        let priority = words.next()?.parse().ok()?;
        let (address, port) = (words.next()?, words.next()?.parse().ok()?);
        let kind = match (words.next()?, words.next()?) {
            ("typ", "host") => "host",
            ("typ", "srflx") => "srflx",
            ("typ", "prflx") => "prflx",
            ("typ", "relay") => "relay",
            _ => return None,
        };
        // Towards TCP candidates the library would open connections to wherever they point, and
        // RTCP has no port of its own here (RFC 8843, section 9.1).
        if !transport.eq_ignore_ascii_case("udp") || component != 1 {
            return Some(Err(CandidateError::NotUdp));
        }
        // Host names hide a browser's addresses; resolving them asks whomever the name belongs to.
        let address = SocketAddr::new(address.parse().ok()?, port);
        if port == 0 {
            return None;
        }
        Some(Ok(Self { foundation, priority, address, kind }))
    }

    /// The line anew, so that the library reads in it what was read here.
    fn write(&self) -> String {
        let Self { foundation, priority, address, kind } = self;
        let (ip, port) = (address.ip(), address.port());
        let related = if *kind == "host" { "" } else { " raddr 0.0.0.0 rport 0" };
        format!("candidate:{foundation} 1 udp {priority} {ip} {port} typ {kind}{related}")
    }
}

/// Whether datagrams may be sent to that address, because the other end says so.
///
/// Two programs on one machine offer each other that machine's own addresses, since
/// [`network::candidates`](crate::network::candidates) leaves loopback out wherever there is
/// another; only on a machine without any do both offer loopback. So it is never needed beside
/// others, and towards it our datagrams would reach services that no other machine can reach.
fn check_address(ip: IpAddr, own: &[IpAddr]) -> Result<(), CandidateError> {
    let is_one_machine = match ip {
        // 0/8 is this machine on this network, 240/4 is reserved and ends with the broadcast
        // address (RFC 6890).
        IpAddr::V4(ip) => !ip.is_multicast() && (1..240).contains(&ip.octets()[0]),
        // A mapped address is an IPv4 one in disguise: no socket of ours sends there.
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
        // It needs a zone, which no candidate can carry (RFC 8839, section 5.1).
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

    fn line(ip: &str, port: u16) -> String {
        format!("candidate:1 1 udp 2130706431 {ip} {port} typ host")
    }

    fn first(line: &str, own_addresses: &[&str]) -> Result<String, CandidateError> {
        RemoteCandidates::default().take(line, &own(own_addresses))
    }

    #[test]
    fn addresses_of_other_machines_are_taken_and_written_as_they_were_read() {
        for ip in ["192.0.2.1", "10.0.0.1", "100.64.0.1", "2001:db8::1", "fd00::1"] {
            let taken = first(&line(ip, 9), &OWN).unwrap();
            assert_eq!(taken, line(ip, 9));
        }
        let chromium = "candidate:842163049 1 UDP 1677729535 192.0.2.1 50000 typ srflx \
            raddr 10.0.0.7 rport 50000 generation 0 ufrag EsAw network-cost 999";
        let taken = "candidate:842163049 1 udp 1677729535 192.0.2.1 50000 typ srflx \
            raddr 0.0.0.0 rport 0";
        assert_eq!(first(chromium, &OWN).as_deref(), Ok(taken));
    }

    #[test]
    fn nothing_is_sent_to_many_or_to_nobody() {
        let nowhere = ["0.0.0.0", "0.1.2.3", "224.0.0.251", "239.255.255.250", "240.0.0.1"];
        let nor_here = ["255.255.255.255", "::", "ff02::1", "ff0e::1", "::ffff:127.0.0.1"];
        for ip in nowhere.into_iter().chain(nor_here) {
            assert_eq!(first(&line(ip, 9), &OWN), Err(CandidateError::NotUnicast), "{ip}");
        }
    }

    #[test]
    fn loopback_is_taken_where_there_is_nothing_else() {
        for ip in ["127.0.0.1", "127.9.9.9", "::1"] {
            assert_eq!(first(&line(ip, 9), &OWN), Err(CandidateError::Loopback), "{ip}");
            assert_eq!(first(&line(ip, 9), &["127.0.0.1", "::1"]), Ok(line(ip, 9)));
        }
    }

    #[test]
    fn link_local_is_taken_by_who_has_such_an_address() {
        let metadata = line("169.254.169.254", 80);
        assert_eq!(first(&metadata, &OWN), Err(CandidateError::LinkLocal));
        assert_eq!(first(&metadata, &["127.0.0.1"]), Err(CandidateError::LinkLocal));
        assert_eq!(first(&metadata, &["169.254.7.7"]), Ok(metadata.clone()));
        assert_eq!(first(&line("fe80::1", 9), &["169.254.7.7"]), Err(CandidateError::LinkLocal));
    }

    #[test]
    fn what_is_no_candidate_for_rtp_over_udp_is_not_taken() {
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
            assert_eq!(first(malformed, &OWN), Err(CandidateError::Malformed), "{malformed}");
        }
        for other in ["1 1 tcp 1 192.0.2.1 9 typ host tcptype passive", "1 2 udp 1 ::2 9 typ host"]
        {
            let line = format!("candidate:{other}");
            assert_eq!(first(&line, &OWN), Err(CandidateError::NotUdp), "{line}");
        }
        let long = format!("{} {}", line("192.0.2.1", 9), "x".repeat(MAX_CANDIDATE_BYTES));
        assert_eq!(first(&long, &OWN), Err(CandidateError::TooLong));
    }

    #[test]
    fn an_address_and_port_is_taken_once_whatever_its_kind() {
        let (mut remote, own) = (RemoteCandidates::default(), own(&OWN));
        assert!(remote.take(&line("192.0.2.1", 9), &own).is_ok());
        let again = "candidate:2 1 udp 1 192.0.2.1 9 typ relay raddr 10.0.0.1 rport 7";
        assert_eq!(remote.take(again, &own), Err(CandidateError::Known));
        remote.restart();
        assert!(remote.take(again, &own).is_ok(), "another generation");
    }

    #[test]
    fn there_are_few_of_an_address_and_few_in_all() {
        let (mut remote, own) = (RemoteCandidates::default(), own(&OWN));
        let mut taken = |ip: &str| {
            let lines = (1..=100).map(|port| line(ip, port));
            lines.filter(|line| remote.take(line, &own).is_ok()).count()
        };
        assert_eq!(taken("192.0.2.1"), MAX_PER_ADDRESS);
        assert_eq!(taken("2001:db8::1"), MAX_PER_ADDRESS);
        let more: usize = (10..99).map(|host| taken(&format!("192.0.2.{host}"))).sum();
        assert_eq!(more, MAX_CANDIDATES - 2 * MAX_PER_ADDRESS);
        assert_eq!(remote.take(&line("192.0.2.200", 9), &own), Err(CandidateError::Enough));
    }
}
