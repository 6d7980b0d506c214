//! The listening sockets of the port.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    task::Poll,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::info;

use super::HubError;

/// Where a hub listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListenAt {
    /// One address; 0.0.0.0 or `::` is all addresses of that family only; `None` is all addresses
    /// of both families, as far as the system has them.
    pub ip: Option<IpAddr>,
    /// The port; 0 is any free one.
    pub port: u16,
}

impl ListenAt {
    /// On all addresses of both families.
    pub const fn everywhere(port: u16) -> Self {
        Self { ip: None, port }
    }

    /// The address that an error names.
    pub(super) fn address(self) -> SocketAddr {
        SocketAddr::new(self.ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), self.port)
    }
}

impl From<SocketAddr> for ListenAt {
    fn from(address: SocketAddr) -> Self {
        Self { ip: Some(address.ip()), port: address.port() }
    }
}

/// How many ports after the requested one are tried: more than one machine runs programs of a kind.
pub(super) const NEXT_PORTS: u16 = 20;

/// How often a free port is requested that is free in both families.
const FREE_PORT_ATTEMPTS: u32 = 20;

/// The most connections that wait to be accepted; the value of the standard library.
const BACKLOG: i32 = 128;

/// Opens the requested port, or the next free one if `next_free_port`.
pub(super) fn listen(at: ListenAt, next_free_port: bool) -> Result<Listeners, HubError> {
    let may_move = next_free_port && at.port != 0;
    let last = if may_move { at.port.saturating_add(NEXT_PORTS) } else { at.port };
    for port in at.port..=last {
        match bind_all(ListenAt { port, ..at }) {
            Err(HubError::Taken { .. }) => {}
            other => return other,
        }
    }
    Err(match may_move {
        true => HubError::AllTaken { address: at.address(), last },
        false => HubError::Taken { address: at.address() },
    })
}

/// The sockets of one port: one, or one for each family.
#[derive(Debug)]
pub(super) struct Listeners {
    sockets: Vec<TcpListener>,
    /// The addresses they listen on; never empty.
    pub(super) addresses: Vec<SocketAddr>,
    /// The socket that is polled first for the next connection.
    first: usize,
}

impl Listeners {
    fn new(sockets: Vec<(TcpListener, SocketAddr)>) -> Self {
        let (sockets, addresses) = sockets.into_iter().unzip();
        Self { sockets, addresses, first: 0 }
    }

    /// The next connection on any of them.
    pub(super) async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        // In turns, so that the connections of one family do not block those of the other.
        self.first = (self.first + 1) % self.sockets.len();
        let (later, sooner) = self.sockets.split_at(self.first);
        std::future::poll_fn(|context| {
            let accepted =
                sooner.iter().chain(later).find_map(|one| match one.poll_accept(context) {
                    Poll::Ready(accepted) => Some(accepted),
                    Poll::Pending => None,
                });
            accepted.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Opens a socket for each family, not one for both: whether a system supports that, and its
/// default, differs between Linux, macOS and Windows.
fn bind_all(at: ListenAt) -> Result<Listeners, HubError> {
    if let Some(ip) = at.ip {
        return Ok(Listeners::new(vec![bind_one(SocketAddr::new(ip, at.port))?]));
    }
    let mut tries = if at.port == 0 { FREE_PORT_ATTEMPTS } else { 1 };
    loop {
        tries -= 1;
        match bind_both(at.port) {
            Err(HubError::Taken { .. }) if tries > 0 => {}
            other => return other,
        }
    }
}

fn bind_both(port: u16) -> Result<Listeners, HubError> {
    let ipv4 = match bind_one((Ipv4Addr::UNSPECIFIED, port).into()) {
        Ok(ipv4) => ipv4,
        Err(taken @ HubError::Taken { .. }) => return Err(taken),
        Err(error) => {
            info!(%error, "no IPv4");
            let ipv6 = bind_one((Ipv6Addr::UNSPECIFIED, port).into());
            return ipv6.map(|ipv6| Listeners::new(vec![ipv6])).map_err(|_| error);
        }
    };
    match bind_one((Ipv6Addr::UNSPECIFIED, ipv4.1.port()).into()) {
        Ok(ipv6) => Ok(Listeners::new(vec![ipv4, ipv6])),
        // A client at this port must not reach another program, in either family.
        Err(taken @ HubError::Taken { .. }) => Err(taken),
        // IPv6 is switched off or not there.
        Err(error) => {
            info!(%error, "no IPv6");
            Ok(Listeners::new(vec![ipv4]))
        }
    }
}

fn bind_one(address: SocketAddr) -> Result<(TcpListener, SocketAddr), HubError> {
    let bound = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // A restarted hub gets its port at once. On Windows the option would let two programs share
        // one port.
        #[cfg(not(windows))]
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bound().map_err(|source: io::Error| match source.kind() == io::ErrorKind::AddrInUse {
        true => HubError::Taken { address },
        false => HubError::Listen { address, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether this system has IPv6.
    fn has_ipv6() -> bool {
        std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
    }

    #[tokio::test]
    async fn everywhere_opens_both_families_on_one_port_and_an_address_opens_one() {
        let mut both = listen(ListenAt::everywhere(0), false).unwrap();
        let port = both.addresses[0].port();
        let reached: Vec<IpAddr> = match has_ipv6() {
            true => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            false => vec![Ipv4Addr::LOCALHOST.into()],
        };
        assert_eq!(both.addresses.len(), reached.len(), "{:?}", both.addresses);
        for ip in reached {
            let (client, accepted) = tokio::join!(TcpStream::connect((ip, port)), both.accept());
            assert_eq!(accepted.unwrap().1, client.unwrap().local_addr().unwrap());
        }
        let one = listen(SocketAddr::from(([127, 0, 0, 1], 0)).into(), false).unwrap();
        assert_eq!(one.addresses.len(), 1);
    }

    #[tokio::test]
    async fn an_unspecified_address_opens_its_own_family_only() {
        let ipv4 = listen(SocketAddr::from(([0, 0, 0, 0], 0)).into(), false).unwrap();
        let port = ipv4.addresses[0].port();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok());
        if !has_ipv6() {
            return eprintln!("SKIPPED in part: this system has no IPv6");
        }
        assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.is_err());
        let ipv6 = listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into(), false).unwrap();
        let port = ipv6.addresses[0].port();
        assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.is_ok());
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err());
    }

    #[tokio::test]
    async fn a_port_that_is_taken_in_one_family_is_taken() {
        if !has_ipv6() {
            return eprintln!("SKIPPED: this system has no IPv6");
        }
        let other = listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into(), false).unwrap();
        let port = other.addresses[0].port();
        let taken = listen(ListenAt::everywhere(port), false).unwrap_err();
        assert!(matches!(taken, HubError::Taken { .. }), "{taken}");
        let next = listen(ListenAt::everywhere(port), true).unwrap();
        assert_ne!(next.addresses[0].port(), port);
    }
}
