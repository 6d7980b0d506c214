//! Parsers of option values. Their errors are sentences for the user.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::Listen;
use crate::{
    capture::SourceSpec,
    engine::ListenAt,
    model::{HubUrl, MAX_NAME_CHARS, SessionId, SessionKind, clean_name, parse_own_id},
    signalling::{DEFAULT_PORT, Subnet},
};

pub(super) fn parse_kind(text: &str) -> anyhow::Result<SessionKind> {
    Ok(text.parse()?)
}

pub(super) fn parse_id(text: &str) -> anyhow::Result<SessionId> {
    Ok(parse_own_id(text)?)
}

pub(super) fn parse_subnet(text: &str) -> anyhow::Result<Subnet> {
    Ok(text.parse()?)
}

pub(super) fn parse_hub(text: &str) -> anyhow::Result<HubUrl> {
    Ok(text.parse()?)
}

pub(super) fn parse_camera(text: OsString) -> anyhow::Result<SourceSpec> {
    Ok(SourceSpec::for_camera(&text)?)
}

pub(super) fn parse_microphone(text: OsString) -> anyhow::Result<SourceSpec> {
    Ok(SourceSpec::for_microphone(&text)?)
}

pub(super) fn parse_name(text: &str) -> anyhow::Result<String> {
    if text.trim().chars().count() > MAX_NAME_CHARS {
        bail!("a name has at most {MAX_NAME_CHARS} characters");
    }
    Ok(clean_name(text))
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
