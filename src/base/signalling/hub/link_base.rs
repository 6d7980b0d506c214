//! The base URL of session links, and the source address that limits apply to.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    model::HubUrl,
    network::{self, AddressFamilies},
};

/// How often a hub checks its address: often enough after a change of the network, and a check
/// takes far less than a millisecond.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The number of checks in a row without a usable address after which the last one is given up:
/// Wi-Fi has none for some seconds while it changes its access point.
const MAX_CHECKS_WITHOUT_ADDRESS: u32 = 5;

/// The current base URL of session links.
#[derive(Debug)]
pub(super) struct LinkBase {
    /// What to find the address for; `None` if the URL is given.
    listening: Option<ListeningOn>,
    current: watch::Sender<HubUrl>,
}

/// The port and the address families of a hub that listens on all addresses.
#[derive(Clone, Copy, Debug)]
struct ListeningOn {
    families: AddressFamilies,
    port: u16,
}

impl LinkBase {
    /// A URL that never changes.
    pub(super) fn fixed(url: HubUrl) -> Self {
        Self { listening: None, current: watch::Sender::new(url) }
    }

    /// The URL of a hub that listens there: its only address, or the best one of this machine.
    /// Blocks for a moment.
    pub(super) fn of_listener(listening: &[SocketAddr]) -> Self {
        let first = listening.first().expect("a hub listens somewhere");
        if !first.ip().is_unspecified() {
            return Self::fixed(url(*first));
        }
        let families = AddressFamilies {
            ipv4: listening.iter().any(SocketAddr::is_ipv4),
            ipv6: listening.iter().any(SocketAddr::is_ipv6),
        };
        let sought = ListeningOn { families, port: first.port() };
        let address = sought.find_address();
        Self { listening: Some(sought), current: watch::Sender::new(sought.url(address)) }
    }

    /// The URL that was found last.
    pub(super) fn current(&self) -> HubUrl {
        self.current.borrow().clone()
    }

    /// The URL, with its changes.
    pub(super) fn subscribe(&self) -> watch::Receiver<HubUrl> {
        self.current.subscribe()
    }

    /// Checks the address now, before the hub sends a link.
    pub(super) async fn refresh(&self) {
        if let Some(sought) = self.listening
            && let Some(address) = sought.find_address_in_background().await
        {
            self.set(sought.url(address));
        }
    }

    /// Checks the address every two seconds; never returns.
    pub(super) async fn keep_refreshing(self: Arc<Self>) {
        let Some(sought) = self.listening else { return std::future::pending().await };
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut filter = OutageFilter::default();
        loop {
            ticks.tick().await;
            let Some(address) = sought.find_address_in_background().await else { continue };
            if filter.accept(address.is_some()) {
                self.set(sought.url(address));
            }
        }
    }

    fn set(&self, url: HubUrl) {
        let is_other = self.current.send_if_modified(|newest| {
            let is_other = *newest != url;
            *newest = url;
            is_other
        });
        if is_other {
            info!("the hub's address has changed");
        }
    }
}

impl ListeningOn {
    fn find_address(self) -> Option<IpAddr> {
        network::link_address(self.families)
    }

    /// Checks on a blocking thread; `None` if the system has no thread for it.
    async fn find_address_in_background(self) -> Option<Option<IpAddr>> {
        let found = spawn_blocking(move || self.find_address()).await;
        found.inspect_err(|error| warn!(%error, "cannot check the hub's address")).ok()
    }

    /// The base URL: loopback if no other machine can reach this one.
    fn url(self, address: Option<IpAddr>) -> HubUrl {
        url(SocketAddr::new(address.unwrap_or_else(|| self.loopback()), self.port))
    }

    const fn loopback(self) -> IpAddr {
        if self.families.ipv4 {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        }
    }
}

/// Delays the loss of an address, since networks come back within seconds.
#[derive(Debug, Default)]
struct OutageFilter {
    checks_without: u32,
}

impl OutageFilter {
    /// Whether to use the result of a check, given whether it found an address.
    fn accept(&mut self, has_address: bool) -> bool {
        self.checks_without = if has_address { 0 } else { self.checks_without.saturating_add(1) };
        has_address || self.checks_without >= MAX_CHECKS_WITHOUT_ADDRESS
    }
}

/// The base URL of a hub at an address.
fn url(address: SocketAddr) -> HubUrl {
    format!("http://{address}").parse().expect("an address and a port make a URL")
}

/// The address that limits count for: an IPv6 host has a whole /64.
pub(super) fn source_prefix(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) if ip.is_loopback() => IpAddr::V6(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(listening: &[&str]) -> LinkBase {
        let listening: Vec<SocketAddr> =
            listening.iter().map(|text| text.parse().unwrap()).collect();
        LinkBase::of_listener(&listening)
    }

    #[test]
    fn a_hub_on_all_addresses_uses_one_of_them_and_its_port() {
        for listening in [&["0.0.0.0:7340"][..], &["[::]:7340"], &["0.0.0.0:7340", "[::]:7340"]] {
            let url = base(listening).current();
            assert!(url.as_str().ends_with(":7340"), "{url}");
            assert!(!url.as_str().contains("0.0.0.0") && !url.as_str().contains("[::]"), "{url}");
        }
    }

    #[tokio::test]
    async fn a_given_address_never_changes() {
        for listening in ["[::1]:7341", "127.0.0.1:7341"] {
            let exact = base(&[listening]);
            exact.refresh().await;
            assert_eq!(exact.current().as_str(), format!("http://{listening}"));
        }
        let public = LinkBase::fixed("https://hub.example".parse().unwrap());
        public.refresh().await;
        assert_eq!(public.current().as_str(), "https://hub.example:443");
    }

    #[test]
    fn a_machine_without_network_uses_loopback_in_a_family_that_it_listens_on() {
        let sought =
            |ipv4, ipv6| ListeningOn { families: AddressFamilies { ipv4, ipv6 }, port: 7340 };
        assert_eq!(sought(true, true).url(None).as_str(), "http://127.0.0.1:7340");
        assert_eq!(sought(false, true).url(None).as_str(), "http://[::1]:7340");
        let ip = "2001:db8::5".parse().ok();
        assert_eq!(sought(true, true).url(ip).as_str(), "http://[2001:db8::5]:7340");
    }

    #[tokio::test]
    async fn subscribers_are_notified_of_another_address_only() {
        let base = base(&["0.0.0.0:7340"]);
        let mut updates = base.subscribe();
        base.set(base.current());
        assert!(!updates.has_changed().unwrap());
        base.set("http://203.0.113.77:7340".parse().unwrap());
        assert_eq!(updates.borrow_and_update().as_str(), "http://203.0.113.77:7340");
        // The machine of this test has another address, or none.
        base.refresh().await;
        assert!(updates.has_changed().unwrap());
    }

    #[test]
    fn a_network_outage_of_a_moment_changes_no_link() {
        let mut filter = OutageFilter::default();
        assert!(filter.accept(true));
        for _ in 1..MAX_CHECKS_WITHOUT_ADDRESS {
            assert!(!filter.accept(false));
        }
        assert!(filter.accept(true));
        for _ in 1..MAX_CHECKS_WITHOUT_ADDRESS {
            assert!(!filter.accept(false));
        }
        assert!(filter.accept(false));
        assert!(filter.accept(true));
    }

    #[test]
    fn an_ipv6_host_is_one_source_with_all_its_addresses() {
        let source = |text: &str| source_prefix(text.parse().unwrap()).to_string();
        assert_eq!(source("2001:db8:1:2:3:4:5:6"), source("2001:db8:1:2:ffff::1"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:192.168.1.5"), "192.168.1.5");
        assert_eq!(source("::1"), "::1");
    }
}
