//! Checks which HTTP requests are served: first by their `Host`, then by their `Origin`. Pure, so
//! that all paths use the same rule.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::{
    HeaderMap, StatusCode, Uri,
    header::{self, HeaderValue},
    http::uri::Authority,
};
use url::{Origin, Url};

use crate::model::HubUrl;

/// The host names of a hub, besides IP addresses and `localhost`.
#[derive(Clone, Default, Debug)]
pub(super) struct HostNames {
    /// The public URL that the user gave it (`--public-url`).
    pub(super) public: Option<HubUrl>,
    /// The host name of this machine. `None` for a hub that listens on a loopback address: only
    /// programs of this machine reach it, and they need no name. (A machine may get its name from
    /// its network. A hub that other machines can reach loses nothing by that: the owner of the
    /// network reaches it anyway.)
    pub(super) machine: Option<String>,
}

impl HostNames {
    /// The host name of this machine, and its multicast DNS name (RFC 6762).
    pub(super) fn of_machine(&self) -> Vec<String> {
        let Some(machine) = &self.machine else { return vec![] };
        let label = machine.split('.').next().unwrap_or_default();
        vec![machine.clone(), format!("{label}.local")]
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RequestRefusal {
    /// It has no `Host`, two, or a malformed one (RFC 9112, section 3.2).
    BadHost,
    /// Its `Host` is not a name of the hub (RFC 9110, section 15.5.20).
    Misdirected,
    /// Its `Origin` is another web site (RFC 6455, section 10.2).
    ForeignOrigin,
}

impl RequestRefusal {
    /// The status and the sentence of the response.
    pub(super) const fn response(self) -> (StatusCode, &'static str) {
        match self {
            Self::BadHost => {
                (StatusCode::BAD_REQUEST, "a request names its host once, in the field Host")
            }
            Self::Misdirected => (
                StatusCode::MISDIRECTED_REQUEST,
                "this Quintet hub does not answer to that host name; use its IP address, or let \
                 the person who runs it start it with --public-url and the address that people use, as \
                 in --public-url http://hub.example:7340",
            ),
            Self::ForeignOrigin => (
                StatusCode::FORBIDDEN,
                "this Quintet hub takes no connections from web pages of other sites; if it is \
                 behind a proxy, start it with --public-url and the address that people use",
            ),
        }
    }
}

/// Checks that a request was sent to this hub.
///
/// A web page can make any name of its own resolve to this machine ("DNS rebinding"), and its
/// browser then sends that name as the host. So only hosts are served that such a page cannot have:
/// IP addresses, `localhost`, and the hub's own names. A proxy in front of the hub either passes
/// the public name on or replaces it by an address.
///
/// # Errors
/// [`RequestRefusal::BadHost`] or [`RequestRefusal::Misdirected`].
pub(super) fn check_host(
    uri: &Uri,
    headers: &HeaderMap,
    names: &HostNames,
) -> Result<(), RequestRefusal> {
    let host = host_field(headers).ok_or(RequestRefusal::BadHost)?;
    // A target in absolute form names the host as well, and must name the same (RFC 9112, 3.2.2).
    if uri.authority().is_some_and(|target| *target != host) {
        return Err(RequestRefusal::BadHost);
    }
    if is_own_host(host.host(), names) { Ok(()) } else { Err(RequestRefusal::Misdirected) }
}

/// Checks that a connection may be opened for the `Origin` of its request; call it after
/// [`check_host`].
///
/// Programs send no origin. A page of the hub itself has the origin that the request was sent to,
/// or the public one if a proxy has replaced the host.
///
/// # Errors
/// [`RequestRefusal::BadHost`] or [`RequestRefusal::ForeignOrigin`].
pub(super) fn check_origin(headers: &HeaderMap, names: &HostNames) -> Result<(), RequestRefusal> {
    let origin = match field_values(headers, header::ORIGIN)[..] {
        [] => return Ok(()),
        [origin] => origin.to_str().ok().and_then(|origin| Url::parse(origin).ok()),
        _ => None,
    };
    let Some(Origin::Tuple(scheme, site, port)) = origin.as_ref().map(Url::origin) else {
        return Err(RequestRefusal::ForeignOrigin);
    };
    let host = host_field(headers).ok_or(RequestRefusal::BadHost)?;
    let usual = if scheme == "https" { 443 } else { 80 };
    let is_sent_there = host.host().eq_ignore_ascii_case(&site.to_string())
        && host.port_u16().unwrap_or(usual) == port;
    let public = names.public.as_ref().and_then(|public| Url::parse(public.as_str()).ok());
    let is_public = public.map(|public| public.origin()) == origin.map(|url| url.origin());
    if is_sent_there || is_public { Ok(()) } else { Err(RequestRefusal::ForeignOrigin) }
}

/// The host of a request; `None` if there is none, more than one, or a malformed one.
fn host_field(headers: &HeaderMap) -> Option<Authority> {
    let [host] = field_values(headers, header::HOST)[..] else { return None };
    let host = Authority::try_from(host.as_bytes()).ok()?;
    let port = host.as_str().strip_prefix(host.host())?;
    // The parser does not check that a port is a number; an empty one is the default port.
    let is_port = matches!(port, "" | ":") || host.port_u16().is_some();
    (!host.host().is_empty() && is_port).then_some(host)
}

fn field_values(headers: &HeaderMap, name: header::HeaderName) -> Vec<&HeaderValue> {
    headers.get_all(name).iter().collect()
}

/// Whether a host name is this hub's: one that no other site can own.
fn is_own_host(host: &str, names: &HostNames) -> bool {
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if in_brackets.is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok())
        || host.parse::<Ipv4Addr>().is_ok()
    {
        return true;
    }
    // `hub.example.` is the same name as `hub.example`.
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let public = names.public.as_ref().and_then(|public| Url::parse(public.as_str()).ok());
    name == "localhost"
        // These never resolve to another machine (RFC 6761, section 6.3).
        || name.ends_with(".localhost")
        || public.as_ref().and_then(Url::host_str).is_some_and(|public| is_same_name(public, &name))
        || names.machine.as_ref().is_some_and(|machine| is_name_of(machine, &name))
}

fn is_same_name(own: &str, name: &str) -> bool {
    own.strip_suffix('.').unwrap_or(own).eq_ignore_ascii_case(name)
}

/// Whether a name is that of this machine: its host name, the same without its domain, or its
/// multicast DNS name (RFC 6762).
fn is_name_of(machine: &str, name: &str) -> bool {
    let label = machine.split('.').next().unwrap_or_default();
    let is_label = |name: &str| !label.is_empty() && label.eq_ignore_ascii_case(name);
    is_same_name(machine, name)
        || is_label(name)
        || name.strip_suffix(".local").is_some_and(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(public: &str, machine: &str) -> HostNames {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let public = given(public).map(|public| public.parse().unwrap());
        HostNames { public, machine: given(machine) }
    }

    fn headers(fields: &[(header::HeaderName, &str)]) -> HeaderMap {
        let fields = fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        let mut headers = HeaderMap::new();
        fields.for_each(|(name, value)| _ = headers.append(name, value));
        headers
    }

    fn check_sent_to(host: &str, names: &HostNames) -> Result<(), RequestRefusal> {
        check_host(&Uri::from_static("/"), &headers(&[(header::HOST, host)]), names)
    }

    #[test]
    fn a_name_that_another_site_may_own_is_not_served() {
        let known = names("https://hub.example/quintet", "olgas-laptop.home.arpa");
        for host in [
            "evil.example",
            "evil.example:7340",
            "hub.example.evil.example",
            "evil-hub.example",
            "localhost.evil.example",
            "notlocalhost",
            "olgas-laptop.evil.example",
            "olgas-laptop.home.arpa.evil.example",
            "local",
            ".local",
            // Names that look like addresses, and forms that browsers never send.
            "127.0.0.1.evil.example",
            "127.0.0.1.",
            "127.1",
            "0x7f000001",
            "2130706433",
            "127.0.0.01",
            "[v1.evil]",
        ] {
            assert_ne!(check_sent_to(host, &known), Ok(()), "{host}");
        }
        assert_eq!(check_sent_to("evil.example", &known), Err(RequestRefusal::Misdirected));
        assert_eq!(
            check_sent_to("olgas-laptop", &HostNames::default()),
            Err(RequestRefusal::Misdirected)
        );
    }

    #[test]
    fn addresses_localhost_and_own_names_are_served_whatever_the_port_and_case() {
        let known = names("https://Hub.Example/quintet", "Olgas-Laptop.home.arpa");
        for host in [
            "127.0.0.1:7340",
            "192.168.1.5",
            "203.0.113.9:80",
            "[::1]:7340",
            "[2001:db8::5]",
            "localhost:7340",
            "LOCALHOST",
            "localhost.",
            "app.localhost:1",
            "hub.example",
            "HUB.example:8443",
            "hub.example.",
            "olgas-laptop",
            "OLGAS-LAPTOP.local:7340",
            "olgas-laptop.home.arpa",
        ] {
            assert_eq!(check_sent_to(host, &known), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_request_without_exactly_one_valid_host_is_refused() {
        let known = names("", "");
        let uri = Uri::from_static("/");
        let bad = Err(RequestRefusal::BadHost);
        assert_eq!(check_host(&uri, &headers(&[]), &known), bad);
        let two = headers(&[(header::HOST, "127.0.0.1"), (header::HOST, "127.0.0.1")]);
        assert_eq!(check_host(&uri, &two, &known), bad);
        for host in
            ["", "a b", "<b>evil</b>", "127.0.0.1:x", "127.0.0.1:99999", "u@127.0.0.1", ":80"]
        {
            assert_eq!(check_sent_to(host, &known), bad, "{host:?}");
        }
        assert_eq!(check_sent_to("127.0.0.1:", &known), Ok(()), "an empty port is the default one");
    }

    #[test]
    fn a_target_in_absolute_form_names_the_same_host() {
        let known = names("", "");
        let sent = |target: &str, host| {
            check_host(&target.parse().unwrap(), &headers(&[(header::HOST, host)]), &known)
        };
        assert_eq!(sent("http://127.0.0.1:7340/", "127.0.0.1:7340"), Ok(()));
        assert_eq!(sent("http://evil.example/", "127.0.0.1:7340"), Err(RequestRefusal::BadHost));
        assert_eq!(sent("http://evil.example/", "evil.example"), Err(RequestRefusal::Misdirected));
    }

    fn check_opened_by(origin: &str, host: &str, names: &HostNames) -> Result<(), RequestRefusal> {
        check_origin(&headers(&[(header::HOST, host), (header::ORIGIN, origin)]), names)
    }

    #[test]
    fn a_web_page_of_another_site_opens_no_connection() {
        let known = names("https://hub.example/quintet", "");
        for origin in [
            "https://evil.example",
            "null",
            "",
            "file://",
            "http://127.0.0.1:80",
            "http://localhost:7340",
            "chrome-extension://abc",
            "http://hub.example",
            "https://hub.example:8443",
        ] {
            assert_eq!(
                check_opened_by(origin, "127.0.0.1:7340", &known),
                Err(RequestRefusal::ForeignOrigin),
                "{origin}"
            );
        }
        let own = "http://127.0.0.1:7340";
        let two = [(header::HOST, "127.0.0.1:7340"), (header::ORIGIN, own), (header::ORIGIN, own)];
        assert_eq!(check_origin(&headers(&two), &known), Err(RequestRefusal::ForeignOrigin));
    }

    #[test]
    fn the_hubs_own_pages_and_programs_open_connections() {
        let known = names("https://hub.example/quintet", "");
        for (origin, host) in [
            ("http://127.0.0.1:7340", "127.0.0.1:7340"),
            ("http://[::1]:7340", "[::1]:7340"),
            ("http://localhost", "localhost"),
            ("https://192.0.2.1", "192.0.2.1"),
            ("https://hub.example", "hub.example"),
            // A proxy that replaces the public name by the hub's own address.
            ("https://hub.example", "127.0.0.1:7340"),
        ] {
            assert_eq!(check_opened_by(origin, host, &known), Ok(()), "{origin} at {host}");
        }
        let program = headers(&[(header::HOST, "127.0.0.1:7340")]);
        assert_eq!(check_origin(&program, &known), Ok(()));
    }
}
