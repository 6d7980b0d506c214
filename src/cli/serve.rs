//! The command `serve`: a hub alone.

use std::{future::pending, time::Duration};

use tokio::time::{Instant, sleep_until, timeout};

use super::{
    certificate::CertificateArgs,
    event_printer::EventPrinter,
    exit_reason::ExitReason,
    values::{Listen, parse_hub, parse_listen, parse_subnet, parse_time},
};
use crate::{
    model::{Event, Failure, FailureCause, FailureCode, HubUrl},
    process::Signals,
    signalling::{Hub, HubIdentity, HubOptions, Subnet},
};

/// The options of `serve`.
#[derive(clap::Args, Debug)]
pub struct ServeOptions {
    /// Where to listen: ADDRESS, ADDRESS:PORT or :PORT; without it, on port 7340 of all
    /// addresses. 0.0.0.0 means all IPv4 addresses only, :: all IPv6 addresses only.
    #[arg(long, value_name = "ADDR", default_value = ":7340", value_parser = parse_listen)]
    pub(super) listen: Listen,
    /// The URL by which clients reach this hub, such as `https://hub.example`: links contain
    /// it, and the hub accepts requests to its host name. Without it, the hub accepts requests
    /// to IP addresses, localhost and the name of this machine.
    #[arg(long, alias = "public", value_name = "URL", value_parser = parse_hub)]
    pub(super) public_url: Option<HubUrl>,
    /// A proxy in front of the hub: ADDRESS or ADDRESS/PREFIX; can be given several times. The
    /// client addresses in X-Forwarded-For and Forwarded are trusted from these proxies only.
    #[arg(long, value_name = "ADDR", value_parser = parse_subnet)]
    pub(super) trusted_proxy: Vec<Subnet>,
    /// https on the same port.
    #[command(flatten)]
    pub(super) certificate: CertificateArgs,
    /// Print one JSON object per line instead of sentences.
    #[arg(long)]
    pub(super) json: bool,
    /// Stop after this time, such as 20s, 5m or 500ms.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    pub(super) time: Option<Duration>,
}

/// Runs a hub until the time is up or a signal asks the program to end.
///
/// # Errors
/// Fails if signals cannot be received, or a part of the hub panics.
pub(super) async fn run(options: &ServeOptions) -> anyhow::Result<ExitReason> {
    let ServeOptions { listen, public_url, trusted_proxy, certificate, json, time } = options;
    let options = HubOptions {
        public: public_url.clone(),
        trusted_proxies: trusted_proxy.clone(),
        certificate: certificate.choice(),
        next_free_port: !listen.port_given,
        identity: HubIdentity::of_this_user(),
        ..HubOptions::at(listen.at)
    };
    run_hub(options, EventPrinter::new(*json), *time).await
}

async fn run_hub(
    options: HubOptions,
    mut printer: EventPrinter,
    time: Option<Duration>,
) -> anyhow::Result<ExitReason> {
    let signals = Signals::listen()?;
    let hub = match Hub::start(options).await {
        Ok(hub) => hub,
        Err(error) => {
            let (code, message) = (FailureCode::HubUnreachable, error.to_string());
            let cause = FailureCause::Other { code, message };
            printer.print_event(&Event::Failed(Failure { cause, session: None }));
            return Ok(ExitReason::HubUnreachable);
        }
    };
    if let Some(fingerprint) = hub.certificate_fingerprint() {
        printer.print_certificate(fingerprint);
    }
    let mut link_bases = hub.link_bases();
    let mut end = std::pin::pin!(until_end(time, signals));
    loop {
        let link_base = link_bases.borrow_and_update().clone();
        printer.print_event(&Event::Listening { hub: link_base });
        tokio::select! {
            Ok(()) = link_bases.changed() => {}
            () = hub.failed() => anyhow::bail!("the hub stopped unexpectedly; start it again"),
            () = &mut end => break,
        }
    }
    if timeout(CLOSE_TIMEOUT, hub.close()).await.is_err() {
        tracing::warn!("the hub did not close its connections in time");
    }
    Ok(ExitReason::Done)
}

/// How long leaving the sessions, or closing a hub, may take: longer than the timeouts of the engine
/// together.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(4);

/// Returns when the time is up, or when a signal asks the program to end.
pub(super) async fn until_end(time: Option<Duration>, mut signals: Signals) {
    let time_is_up = async {
        match time {
            Some(time) => sleep_until(Instant::now() + time).await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = time_is_up => {}
        () = signals.shutdown_requested() => {}
    }
}
