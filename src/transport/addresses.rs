//! The local addresses a connection binds, and so offers as host candidates (RFC 8445, 5.1.1).

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    vec,
};

use crate::network::{self, KnownPaths};

/// The machine's usable addresses, chosen anew whenever sockets are bound: at the start, and again
/// at every ICE restart, so that a restart follows the machine into another network.
///
/// Loopback is taken when there is nothing else. The library's own wildcard leaves it out and
/// so offers, on a machine that is offline, an address that nobody can use.
#[derive(Clone, Debug)]
pub(super) struct HostAddresses(pub(super) KnownPaths);

impl ToSocketAddrs for HostAddresses {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let chosen = network::candidates(&self.0).into_iter().map(|ip| SocketAddr::new(ip, 0));
        Ok(chosen.collect::<Vec<_>>().into_iter())
    }
}
