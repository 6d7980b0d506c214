//! Addresses that people paste: of a hub, and of a session (its link).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    IdError, SessionId,
    text::{normalize_pasted, with_plain_dashes},
};

/// The default port of a hub. An address without a scheme and without a port means this one.
pub const HUB_PORT: u16 = 7340;

/// The base address of a hub: `http` or `https`, a host, a port, and an optional path prefix.
///
/// Normalised, so that two spellings of one address are equal: no query, no trailing slash, and the
/// port is always written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HubUrl(String);

impl HubUrl {
    /// The address as text, `http://192.168.1.5:7340`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The link of a session at this hub.
    pub fn link(&self, session: &SessionId) -> SessionLink {
        SessionLink { hub: self.clone(), session: session.clone() }
    }

    /// The URL at which the hub accepts WebSocket connections.
    pub fn socket_url(&self) -> String {
        let tail = self.0.strip_prefix("http").unwrap_or(&self.0);
        format!("ws{tail}/signal")
    }

    /// Whether the host is a loopback address, so that it names this machine only.
    pub fn is_loopback(&self) -> bool {
        let Ok(url) = Url::parse(&self.0) else { return false };
        match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }

    pub(super) fn from_url(url: &Url) -> Result<Self, LinkError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(LinkError::Scheme(url.scheme().to_owned()));
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(LinkError::NoHost);
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(LinkError::Password);
        }
        let path = url.path().trim_end_matches('/');
        Ok(Self(format!("{}://{host}:{port}{path}", url.scheme())))
    }
}

impl FromStr for HubUrl {
    type Err = LinkError;

    /// Parses a full URL, `HOST:PORT`, or `HOST` for [`HUB_PORT`] on that host, as people paste it:
    /// invisible characters and surrounding punctuation are removed.
    fn from_str(text: &str) -> Result<Self, LinkError> {
        let text = with_plain_dashes(&normalize_pasted(text));
        let around = |c: char| c.is_whitespace() || "<>()\"'\u{201c}\u{201d}".contains(c);
        let text = text.trim_start_matches(around);
        let text = text.trim_end_matches(|c: char| around(c) || ".,;!?".contains(c));
        let url = Url::parse(&with_scheme_and_port(text))
            .map_err(|_| LinkError::Malformed(text.to_owned()))?;
        Self::from_url(&url)
    }
}

impl fmt::Display for HubUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for HubUrl {
    type Error = LinkError;

    /// Parses an address in its normal form.
    fn try_from(text: String) -> Result<Self, LinkError> {
        let url = Url::parse(&text).map_err(|_| LinkError::Malformed(text))?;
        Self::from_url(&url)
    }
}

impl From<HubUrl> for String {
    fn from(url: HubUrl) -> Self {
        url.0
    }
}

/// The owner of the hub that answers at an address, as far as that can be known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HubOwner {
    /// This user. The hub has proven that it knows the secret that only programs of this user can
    /// read.
    ThisUser,
    /// Unknown. The hub was reached at a loopback address and proved nothing: it may belong to
    /// another user or another program, or be the far end of a tunnel.
    Unproven,
    /// Unknown. The hub was reached at a network address.
    Elsewhere,
}

/// A hub as it was reached. Secrets that a hub issued are stored under its endpoint: a hub at
/// another address, or one that is now unproven at the same address, does not get them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct HubEndpoint {
    /// The address that was dialled: the given address, or the one it redirected to.
    pub url: HubUrl,
    /// The owner of the hub that answered there.
    pub owner: HubOwner,
}

/// The full address of a session: `http://HOST:PORT/s/ID`, with a path prefix if the hub has one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(into = "String")]
pub struct SessionLink {
    /// The address of the session's hub.
    pub hub: HubUrl,
    /// The id of the session.
    pub session: SessionId,
}

impl FromStr for SessionLink {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        let mut url = Url::parse(text).map_err(|_| LinkError::Malformed(text.to_owned()))?;
        let path = url.path().trim_end_matches('/').to_owned();
        let Some((prefix, id)) = path.rsplit_once("/s/") else {
            return Err(LinkError::NoSession(text.to_owned()));
        };
        let session = SessionId::parse(id)?;
        url.set_path(prefix);
        Ok(Self { hub: HubUrl::from_url(&url)?, session })
    }
}

impl From<SessionLink> for String {
    fn from(link: SessionLink) -> Self {
        link.to_string()
    }
}

impl fmt::Display for SessionLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s/{}", self.hub, self.session)
    }
}

/// An address with the default scheme and port filled in where they are missing.
pub(super) fn with_scheme_and_port(text: &str) -> String {
    if text.contains("://") {
        return text.to_owned();
    }
    let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match host.rsplit_once(':') {
        Some((_, port)) if is_port(port) => format!("http://{text}"),
        _ => format!("http://{host}:{HUB_PORT}{path}"),
    }
}

/// Why a text is not the address of a hub or session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The text is not a URL.
    #[error("{0:?} is not an address such as http://192.168.1.5:7340")]
    Malformed(String),
    /// The scheme is neither `http` nor `https`.
    #[error("a hub's address starts with http:// or https://, not {0}://")]
    Scheme(String),
    /// There is no host or no port.
    #[error("the address has no host name")]
    NoHost,
    /// A user name and password in an address would end up in logs.
    #[error("a hub's address has no user name and no password")]
    Password,
    /// There is no `/s/ID` in it.
    #[error("a link to a session ends in /s/ID, and {0:?} does not")]
    NoSession(String),
    /// The text contains neither a link nor an id.
    #[error("that is not a link or session id. Ids have no spaces")]
    NoTarget,
    /// The part after `/s/` is not a valid id.
    #[error(transparent)]
    Id(#[from] IdError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_survives_its_text_form_with_and_without_a_prefix() {
        for text in ["http://192.168.1.5:7340/s/a-b", "https://hub.example:443/quintet/s/x"] {
            assert_eq!(text.parse::<SessionLink>().unwrap().to_string(), text);
        }
        let short: SessionLink = "https://hub.example/s/x/".parse().unwrap();
        assert_eq!(short.to_string(), "https://hub.example:443/s/x");
        assert_eq!(short.hub.socket_url(), "wss://hub.example:443/signal");
    }

    #[test]
    fn an_address_without_scheme_and_port_has_the_default_port() {
        for (text, whole) in [
            ("hub.example", "http://hub.example:7340"),
            ("hub.example/quintet", "http://hub.example:7340/quintet"),
            ("hub.example:80", "http://hub.example:80"),
            ("[::1]", "http://[::1]:7340"),
            ("[::1]:9", "http://[::1]:9"),
            ("http://hub.example", "http://hub.example:80"),
        ] {
            assert_eq!(text.parse::<HubUrl>().unwrap().as_str(), whole);
        }
        for pasted in ["<http://hub.example:7340/>.", "\u{feff}HTTP://hub.example:7340\u{200b}"] {
            assert_eq!(pasted.parse::<HubUrl>().unwrap().as_str(), "http://hub.example:7340");
        }
    }

    #[test]
    fn a_hub_on_this_machine_is_recognised_by_its_address() {
        assert!("127.0.0.1:7340".parse::<HubUrl>().unwrap().is_loopback());
        assert!(!"192.168.1.5:7340".parse::<HubUrl>().unwrap().is_loopback());
    }

    #[test]
    fn the_error_of_an_invalid_address_says_what_is_wrong() {
        let link = |text: &str| text.parse::<SessionLink>();
        assert!(matches!(link("ftp://x/s/a"), Err(LinkError::Scheme(_))));
        assert!(matches!(link("http://x/a"), Err(LinkError::NoSession(_))));
        assert!(matches!(link("http://x/s/%20"), Err(LinkError::Id(_))));
        assert!(matches!("http://u:p@x".parse::<HubUrl>(), Err(LinkError::Password)));
        assert!(matches!("http://".parse::<HubUrl>(), Err(LinkError::Malformed(_))));
    }
}
