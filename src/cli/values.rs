//! Values of options of `serve` and of all other commands. Their errors are sentences for the user.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::{
    model::HubUrl,
    signalling::{DEFAULT_PORT, ListenAt, Subnet},
};

/// Where a hub of our own listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Listen {
    /// The addresses and the port.
    pub(super) at: ListenAt,
    /// Whether the port was given; then no other port is used.
    pub(super) port_given: bool,
}

pub(super) fn parse_subnet(text: &str) -> anyhow::Result<Subnet> {
    Ok(text.parse()?)
}

pub(super) fn parse_hub(text: &str) -> anyhow::Result<HubUrl> {
    Ok(text.parse()?)
}

/// Parses `ADDRESS`, `ADDRESS:PORT`, `[V6]:PORT` or `:PORT`.
pub(super) fn parse_listen(text: &str) -> anyhow::Result<Listen> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Listen { at: address.into(), port_given: true });
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        let at = ListenAt { ip: Some(ip), port: DEFAULT_PORT };
        return Ok(Listen { at, port_given: false });
    }
    let port = text.strip_prefix(':').and_then(|port| port.parse().ok());
    let Some(port) = port else {
        bail!("{text:?} is not an address to listen on; it is 127.0.0.1, 127.0.0.1:7340 or :7340");
    };
    Ok(Listen { at: ListenAt::everywhere(port), port_given: true })
}

/// Parses `500ms`, `20s`, `5m` or `2h`; a number without a unit is seconds.
pub(super) fn parse_time(text: &str) -> anyhow::Result<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => bail!("{unit:?} is not a unit of time; use ms, s, m or h"),
    };
    let number: f64 = number.parse().with_context(|| format!("{text:?} is not a time"))?;
    let seconds = number * seconds;
    if seconds > LONGEST_TIME.as_secs_f64() {
        bail!("{text:?} is too long; leave out --for to run without a limit");
    }
    if seconds <= 0.0 {
        bail!("{text:?} must be longer than zero");
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// The longest `--for`: a hundred years.
const LONGEST_TIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_listen_on_has_four_forms() {
        let listen = |text| {
            let Listen { at: ListenAt { ip, port }, port_given } = parse_listen(text)?;
            let ip = ip.map_or_else(|| "all".to_owned(), |ip| ip.to_string());
            anyhow::Ok((ip, port, port_given))
        };
        assert_eq!(listen("127.0.0.1").unwrap(), ("127.0.0.1".into(), 7340, false));
        assert_eq!(listen("127.0.0.1:0").unwrap(), ("127.0.0.1".into(), 0, true));
        assert_eq!(listen(":80").unwrap(), ("all".into(), 80, true));
        assert_eq!(listen("::1").unwrap(), ("::1".into(), 7340, false));
        // An explicit unspecified address means one address family.
        assert_eq!(listen("0.0.0.0:80").unwrap(), ("0.0.0.0".into(), 80, true));
        assert_eq!(listen("[::]:80").unwrap(), ("::".into(), 80, true));
        assert_eq!(listen("::").unwrap(), ("::".into(), 7340, false));
        assert!(listen("nowhere").is_err() && listen(":x").is_err());
    }
}
