//! Decides whether a client uses the base URL for session links that a hub announces.

use std::net::IpAddr;

use url::Url;

use crate::{
    model::{HubEndpoint, HubOwner, HubUrl},
    network,
};

/// Which announced base URLs a client accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LinkBasePolicy {
    /// All announced URLs.
    AcceptAll,
    /// Those that name an address of this machine, and this port.
    AcceptThisMachine { port: Option<u16> },
    /// None: the address that the client has may lead through a proxy that the hub does not know.
    RejectAll,
}

impl LinkBasePolicy {
    /// The policy for a hub that was reached at `place` and announced that URL in `welcome`.
    ///
    /// A loopback address is of no use to others, so the announced URL is needed; but it cannot be
    /// verified, so it is accepted without a check only from this user's hub. Elsewhere the given
    /// address is kept, unless the hub announces the same.
    pub(super) fn for_hub(endpoint: &HubEndpoint, announced: Option<&HubUrl>) -> Self {
        match endpoint.owner {
            HubOwner::ThisUser if endpoint.url.is_loopback() => Self::AcceptAll,
            HubOwner::Unproven if endpoint.url.is_loopback() => {
                let url = Url::parse(endpoint.url.as_str()).ok();
                Self::AcceptThisMachine { port: url.and_then(|url| url.port_or_known_default()) }
            }
            HubOwner::ThisUser | HubOwner::Unproven | HubOwner::Elsewhere
                if announced == Some(&endpoint.url) =>
            {
                Self::AcceptAll
            }
            HubOwner::ThisUser | HubOwner::Unproven | HubOwner::Elsewhere => Self::RejectAll,
        }
    }

    pub(super) fn accepts(self, announced: &HubUrl) -> bool {
        match self {
            Self::AcceptAll => true,
            Self::AcceptThisMachine { port } => {
                let Ok(url) = Url::parse(announced.as_str()) else { return false };
                let ip = match url.host() {
                    Some(url::Host::Ipv4(ip)) => IpAddr::V4(ip),
                    Some(url::Host::Ipv6(ip)) => IpAddr::V6(ip),
                    Some(url::Host::Domain(_)) | None => return false,
                };
                url.scheme() == "http"
                    && url.port_or_known_default() == port
                    && network::is_local_address(ip)
            }
            Self::RejectAll => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_hub_of_this_user_may_announce_any_url_and_others_only_this_machine() {
        let url = |text: &str| -> HubUrl { text.parse().unwrap() };
        let follows = |at: &str, owner, announced: &str| {
            LinkBasePolicy::for_hub(&HubEndpoint { url: url(at), owner }, Some(&url(announced)))
                .accepts(&url(announced))
        };
        let (loopback, elsewhere) = ("http://127.0.0.1:7340", "https://good.example");
        assert!(follows(loopback, HubOwner::ThisUser, elsewhere));
        assert!(!follows(loopback, HubOwner::Unproven, elsewhere));
        for (announced, believed) in [
            ("http://127.0.0.1:7340", true),
            ("http://127.0.0.9:7340", true),
            // Another hub of this machine.
            ("http://127.0.0.1:7341", false),
            ("https://127.0.0.1:7340", false),
            // Other machines (RFC 5737), and no machine.
            ("http://192.0.2.1:7340", false),
            ("http://0.0.0.0:7340", false),
            ("http://224.0.0.1:7340", false),
            ("http://localhost:7340", false),
        ] {
            assert_eq!(follows(loopback, HubOwner::Unproven, announced), believed, "{announced}");
        }
        let far = "http://192.0.2.1:7340";
        assert!(follows(far, HubOwner::Elsewhere, far));
        assert!(!follows(far, HubOwner::Elsewhere, elsewhere));
        assert!(!follows(far, HubOwner::ThisUser, elsewhere));
    }
}
