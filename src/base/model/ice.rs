//! Reads ICE candidates (RFC 8839, section 5.1).

use core::net::IpAddr;

/// The addresses of the UDP candidates in a text. The text is a session description, or one
/// candidate as it is signalled. Host names (mDNS) and TCP candidates are skipped, because this
/// program connects to neither.
///
/// ```
/// # use quintet_base::model::candidate_addresses;
/// let line = "candidate:1 1 udp 2130706431 192.168.1.5 50000 typ host";
/// assert_eq!(candidate_addresses(line).count(), 1);
/// ```
pub fn candidate_addresses(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let candidate = line.trim_start().strip_prefix("a=").unwrap_or(line);
        let mut fields = candidate.strip_prefix("candidate:")?.split_ascii_whitespace();
        let is_udp = fields.nth(2)?.eq_ignore_ascii_case("udp");
        let address = fields.nth(1)?.parse().ok()?;
        is_udp.then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_udp_candidates_are_read_from_lines_and_descriptions() {
        let sdp = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
            a=candidate:1 1 UDP 2130706431 192.168.1.5 50000 typ host\r\n\
            a=candidate:2 1 tcp 1518280447 192.168.1.6 9 typ host tcptype active\r\n\
            a=candidate:3 1 udp 2130706431 2001:db8::5 50001 typ host generation 0\r\n\
            a=candidate:4 1 udp 2130706431 0b1c-d2.local 50002 typ host\r\n\
            a=candidate:5 1 udp\r\na=end-of-candidates\r\n";
        let read = |text| candidate_addresses(text).map(|ip| ip.to_string()).collect::<Vec<_>>();
        assert_eq!(read(sdp), ["192.168.1.5", "2001:db8::5"]);
        assert_eq!(read("candidate:1 1 udp 1 10.0.0.1 9 typ host"), ["10.0.0.1"]);
        assert!(read("").is_empty() && read("an offer").is_empty());
    }
}
