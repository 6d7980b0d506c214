//! The local addresses a connection binds, and so offers as host candidates (RFC 8445, 5.1.1).

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    vec,
};

use crate::network::{self, KnownPaths};

/// The machine's usable addresses, chosen anew whenever sockets are bound: at the start, and again
/// at every ICE restart, so that a restart follows the machine into another network.
///
/// Loopback is taken when there is nothing else. The library's own wildcard leaves it out and
/// so offers, on a machine that is offline, an address that nobody can use.
///
/// Clones know of each other's choice.
#[derive(Clone, Debug)]
pub(super) struct HostAddresses {
    paths: KnownPaths,
    /// The choice of the last time.
    chosen: Arc<Mutex<Vec<IpAddr>>>,
}

impl HostAddresses {
    /// The addresses, those first that `paths` leads to; none is chosen yet.
    pub(super) fn new(paths: KnownPaths) -> Self {
        Self { paths, chosen: Arc::default() }
    }

    /// The addresses that were chosen when sockets were bound last.
    pub(super) fn chosen(&self) -> Vec<IpAddr> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ToSocketAddrs for HostAddresses {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let chosen = network::candidates(&self.paths);
        let addresses: Vec<_> = chosen.iter().map(|ip| SocketAddr::new(*ip, 0)).collect();
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = chosen;
        Ok(addresses.into_iter())
    }
}
