//! Whether the links of a hub's sessions start with what the hub says of itself.

use std::net::IpAddr;

use url::Url;

use crate::{
    model::{HubOwner, HubPlace, HubUrl},
    network,
};

/// Whether links start with what a hub says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Follows {
    /// Whatever it says.
    Always,
    /// If it names an address of this machine, and this port.
    OnThisMachine { port: Option<u16> },
    /// Not at all: the address that we have may lead through what the hub knows nothing of.
    Never,
}

impl Follows {
    /// How links follow a hub that was reached there and said that of itself in its welcome.
    ///
    /// A loopback address is of no use to others, so the hub's own idea is wanted; but only one of
    /// this user's is believed what cannot be checked. Elsewhere the address that was given is kept,
    /// unless it is the hub's own idea as well.
    pub(super) fn of(place: &HubPlace, announced: Option<&HubUrl>) -> Self {
        match place.owner {
            HubOwner::ThisUser if place.url.is_loopback() => Self::Always,
            HubOwner::Unproven if place.url.is_loopback() => {
                let url = Url::parse(place.url.as_str()).ok();
                Self::OnThisMachine { port: url.and_then(|url| url.port_or_known_default()) }
            }
            HubOwner::ThisUser | HubOwner::Unproven | HubOwner::Elsewhere
                if announced == Some(&place.url) =>
            {
                Self::Always
            }
            HubOwner::ThisUser | HubOwner::Unproven | HubOwner::Elsewhere => Self::Never,
        }
    }

    pub(super) fn believes(self, announced: &HubUrl) -> bool {
        match self {
            Self::Always => true,
            Self::OnThisMachine { port } => {
                let Ok(url) = Url::parse(announced.as_str()) else { return false };
                let ip = match url.host() {
                    Some(url::Host::Ipv4(ip)) => IpAddr::V4(ip),
                    Some(url::Host::Ipv6(ip)) => IpAddr::V6(ip),
                    Some(url::Host::Domain(_)) | None => return false,
                };
                url.scheme() == "http" && url.port_or_known_default() == port && network::is_own(ip)
            }
            Self::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_follow_a_loopback_hub_of_this_user_and_others_only_within_this_machine() {
        let url = |text: &str| -> HubUrl { text.parse().unwrap() };
        let follows = |at: &str, owner, said: &str| {
            Follows::of(&HubPlace { url: url(at), owner }, Some(&url(announced)))
                .believes(&url(announced))
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
