//! The client behind a trusted proxy, from the header fields of its request.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use hyper::{
    HeaderMap,
    header::{self, HeaderName},
};

/// A range of addresses, such as those of trusted proxies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subnet {
    /// IPv4 addresses are mapped (RFC 4291, section 2.5.5.2).
    address: Ipv6Addr,
    /// The number of leading bits that count.
    prefix: u8,
}

/// Why a text is not a [`Subnet`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address or ADDRESS/PREFIX, such as 127.0.0.1 or 10.0.0.0/8")]
pub struct SubnetError(String);

impl Subnet {
    /// Whether an address is in the range.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let differs = to_ipv6(ip).to_bits() ^ self.address.to_bits();
        differs.leading_zeros() >= u32::from(self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let wrong = || SubnetError(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let ip: IpAddr = address.parse().map_err(|_| wrong())?;
        let (width, before) = if ip.is_ipv4() { (32, 96) } else { (128, 0) };
        let prefix = match prefix {
            None => width,
            Some(prefix) => prefix.parse().ok().filter(|bits| *bits <= width).ok_or_else(wrong)?,
        };
        Ok(Self { address: to_ipv6(ip), prefix: before + prefix })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address.to_ipv4_mapped(), self.prefix) {
            (Some(ip), prefix @ 96..) => write!(f, "{ip}/{}", prefix - 96),
            (_, prefix) => write!(f, "{}/{prefix}", self.address),
        }
    }
}

fn to_ipv6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Whether an address is that of a trusted proxy.
pub(super) fn is_trusted(proxies: &[Subnet], ip: IpAddr) -> bool {
    proxies.iter().any(|subnet| subnet.contains(ip))
}

/// The client behind trusted proxies: the last address in the list that is not a trusted proxy. The
/// client may have written the addresses before it.
///
/// `None` if there is no list, or if that element is not an address (RFC 7239, section 6, allows
/// `unknown` and made-up names).
pub(super) fn forwarded_client(headers: &HeaderMap, proxies: &[Subnet]) -> Option<IpAddr> {
    const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    let list = |name: HeaderName| -> Option<Vec<String>> {
        let values = headers.get_all(name).iter();
        let values: Vec<_> = values.map(|value| value.to_str().unwrap_or_default()).collect();
        let elements = values.into_iter().flat_map(|value| value.split(','));
        let elements: Vec<_> = elements.map(|one| one.trim().to_owned()).collect();
        (!elements.is_empty()).then_some(elements)
    };
    let hops: Vec<Option<IpAddr>> = match (list(X_FORWARDED_FOR), list(header::FORWARDED)) {
        (Some(hops), _) => hops.iter().map(|hop| parse_address(hop)).collect(),
        (None, Some(hops)) => hops.iter().map(|hop| parse_address(forwarded_for(hop)?)).collect(),
        (None, None) => return None,
    };
    let mut hops = hops.into_iter().rev();
    hops.find(|hop| hop.is_none_or(|ip| !is_trusted(proxies, ip))).flatten()
}

/// The `for` of an element of `Forwarded` (RFC 7239, section 4), without quotation marks.
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

/// An address, with or without a port or brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
    let in_brackets = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let bare = || in_brackets.unwrap_or(text).parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare().or_else(with_port).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(list: &[&str]) -> Vec<Subnet> {
        list.iter().map(|one| one.parse().unwrap()).collect()
    }

    fn behind(fields: &[(&'static str, &str)], trusted: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        forwarded_client(&headers, &proxies(trusted)).map(|ip| ip.to_string())
    }

    #[test]
    fn a_subnet_is_an_address_or_a_prefix_of_one() {
        for (subnet, inside, outside) in [
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("::1", "::1", "::2"),
            ("2001:db8::/32", "2001:db8:ff::1", "2001:db9::1"),
            ("127.0.0.0/8", "::ffff:127.0.0.1", "::1"),
        ] {
            let parsed: Subnet = subnet.parse().unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{subnet} {inside}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{subnet} {outside}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed));
        }
        for wrong in ["", "localhost", "10.0.0.0/33", "::1/129", "10.0.0.0/", "10.0.0.0/-1", "/8"] {
            let error = wrong.parse::<Subnet>().unwrap_err().to_string();
            assert!(error.contains("ADDRESS/PREFIX"), "{error}");
        }
    }

    #[test]
    fn the_client_is_the_last_hop_that_is_not_a_trusted_proxy() {
        let trusted = &["127.0.0.1", "10.0.0.0/8"][..];
        let forwarded = |value| behind(&[("x-forwarded-for", value)], trusted);
        assert_eq!(forwarded("203.0.113.9").as_deref(), Some("203.0.113.9"));
        // The first hops may be forged.
        assert_eq!(forwarded("192.0.2.1, 203.0.113.9").as_deref(), Some("203.0.113.9"));
        assert_eq!(forwarded("203.0.113.9, 10.1.2.3").as_deref(), Some("203.0.113.9"));
        assert_eq!(forwarded("203.0.113.9:4711").as_deref(), Some("203.0.113.9"));
        assert_eq!(forwarded("[2001:db8::5]:4711").as_deref(), Some("2001:db8::5"));
        assert_eq!(forwarded("203.0.113.9, unknown"), None);
        assert_eq!(forwarded("10.1.2.3"), None, "only proxies");
        assert_eq!(behind(&[], trusted), None);
        let two = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(behind(&two, trusted).as_deref(), Some("203.0.113.9"));
    }

    #[test]
    fn the_field_forwarded_is_read_if_there_is_no_x_forwarded_for() {
        let trusted = &["127.0.0.1"][..];
        let forwarded = |value| behind(&[("forwarded", value)], trusted);
        let value = r#"for=192.0.2.43, proto=https;For="[2001:db8:cafe::17]:4711";by=203.0.113.43"#;
        assert_eq!(forwarded(value).as_deref(), Some("2001:db8:cafe::17"));
        assert_eq!(forwarded("for=_hidden"), None);
        assert_eq!(forwarded("proto=https"), None);
        let both = [("forwarded", "for=192.0.2.1"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(behind(&both, trusted).as_deref(), Some("203.0.113.9"));
    }
}
