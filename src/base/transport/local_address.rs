//! Notices that this machine no longer has the address that a connection sends from, as after a
//! change of networks. The socket stays open, so neither it nor webrtc-rs reports anything before
//! packets have been missing for seconds.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::stats::ConnectionStats;

/// How often the address is checked. It is lost when it is gone in two checks in a row: the client
/// of the hub looks more often (`network::until_gone`), so the core knows by then that the hub cannot
/// be reached, and does not send it an offer that would be lost.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Watches the local address of the selected path of a connection.
#[derive(Debug)]
pub(super) struct LocalAddressWatch {
    stats: Arc<ConnectionStats>,
    checks: Interval,
    loss: AddressLoss,
}

impl LocalAddressWatch {
    /// Call it inside a tokio runtime.
    pub(super) fn new(stats: Arc<ConnectionStats>) -> Self {
        let mut checks = interval_at(Instant::now() + CHECK_INTERVAL, CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { stats, checks, loss: AddressLoss::default() }
    }

    /// Returns when the address of the socket that was used last is lost, once for each socket. It
    /// can be cancelled and called again.
    pub(super) async fn lost(&mut self, is_gone: impl Fn(SocketAddr) -> bool) {
        loop {
            self.checks.tick().await;
            let local = self.stats.route().map(|(local, _)| local);
            if self.loss.on_check(local, &is_gone) {
                return;
            }
        }
    }
}

/// The socket whose address was gone in the last check, and in how many checks in a row.
#[derive(Debug, Default)]
struct AddressLoss(Option<(SocketAddr, u32)>);

impl AddressLoss {
    /// Handles a check of the socket that was used last. Returns whether its address is lost now.
    fn on_check(
        &mut self,
        local: Option<SocketAddr>,
        is_gone: impl Fn(SocketAddr) -> bool,
    ) -> bool {
        let before = self.0.take();
        let Some(local) = local.filter(|local| is_gone(*local)) else { return false };
        let count = before.filter(|(known, _)| *known == local).map_or(1, |(_, count)| count + 1);
        self.0 = Some((local, count));
        count == 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_gone_twice_in_a_row_is_lost_once_for_each_socket() {
        let [one, other] = ["192.0.2.1:5000", "192.0.2.1:5001"].map(|text| text.parse().unwrap());
        let mut loss = AddressLoss::default();
        let mut check = |socket: SocketAddr, gone| loss.on_check(Some(socket), |_| gone);
        assert_eq!([true, false, true].map(|gone| check(one, gone)), [false; 3], "it was back");
        assert_eq!([true, true, true].map(|gone| check(one, gone)), [true, false, false]);
        assert_eq!([true, true].map(|gone| check(other, gone)), [false, true]);
        assert!(!loss.on_check(None, |_| true), "nothing is sent yet");
    }
}
