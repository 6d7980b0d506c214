//! The local addresses that a connection binds and offers as host candidates (RFC 8445, section
//! 5.1.1).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    vec,
};

use crate::network::{self, KnownPaths};

/// The machine's usable addresses. They are chosen anew whenever sockets are bound: at the start
/// and at every ICE restart, so that a restart works after the machine has changed networks.
///
/// Loopback is used only if there is no other address. The wildcard address of webrtc-rs leaves
/// loopback out, so a machine that is offline would offer an address that no peer can use.
///
/// Clones share the latest choice.
#[derive(Clone, Debug)]
pub(super) struct HostAddresses {
    /// The paths whose addresses are preferred; `None` for a loopback address and no other.
    paths: Option<KnownPaths>,
    /// The latest choice.
    chosen: Arc<Mutex<Vec<IpAddr>>>,
}

impl HostAddresses {
    /// Prefers the addresses that `paths` leads to. Nothing is chosen yet.
    pub(super) fn new(paths: KnownPaths) -> Self {
        Self { paths: Some(paths), chosen: Arc::default() }
    }

    /// Chooses a loopback address and no other.
    pub(super) fn loopback() -> Self {
        Self { paths: None, chosen: Arc::default() }
    }

    /// The addresses that were chosen when sockets were last bound.
    pub(super) fn chosen(&self) -> Vec<IpAddr> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ToSocketAddrs for HostAddresses {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let loopback = || vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let chosen = self.paths.as_ref().map_or_else(loopback, network::candidates);
        let addresses: Vec<_> = chosen.iter().map(|ip| SocketAddr::new(*ip, 0)).collect();
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = chosen;
        Ok(addresses.into_iter())
    }
}
