//! Sentences for people about a hub's certificate: what is wrong with it, and what to do.

use chrono::DateTime;
use rustls::{CertificateError, Error, OtherError, pki_types::UnixTime};

use super::tls::{SelfSigned, is_ca_as_end_entity};
use crate::model::HubUrl;

/// The most names of a certificate that are shown.
const MAX_NAMES: usize = 3;

/// The longest name of a certificate that is shown, in characters.
const MAX_NAME: usize = 64;

const RENEW: &str =
    "the person who runs the hub must renew it; check the date of this computer, too";

const SET_CLOCK: &str = "check the date and time of this computer";

const NEW_ONE: &str = "the person who runs the hub must replace it";

const TRY_AGAIN: &str = "check the network, or let the person who runs the hub replace it";

/// The sentence about a hub whose certificate was refused.
pub(super) fn certificate_refused(hub: &HubUrl, error: &CertificateError) -> String {
    let (what, way_out) = explain(error);
    format!("the certificate of the hub {hub} {what}, so it cannot be trusted; {way_out}")
}

/// What is wrong with the certificate, and what to do.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "rustls may add faults; those of today are listed or shown with its own text"
)]
fn explain(error: &CertificateError) -> (String, String) {
    use CertificateError as E;
    let (what, way_out): (String, &str) = match error {
        E::Expired => ("has expired".into(), RENEW),
        E::ExpiredContext { not_after, .. } => (format!("expired on {}", date(not_after)), RENEW),
        E::NotValidYet => ("is not valid yet".into(), SET_CLOCK),
        E::NotValidYetContext { not_before, .. } => {
            (format!("is not valid before {}", date(not_before)), SET_CLOCK)
        }
        E::Revoked => ("was revoked by the authority that issued it".into(), NEW_ONE),
        E::NotValidForName => {
            ("is for another host name".into(), "check the address, or use the name it is for")
        }
        E::NotValidForNameContext { presented, .. } => (
            presented_names(presented),
            "check the address, or let the person who runs the hub add this name to it",
        ),
        E::UnknownIssuer => (
            "comes from an authority that this computer does not know".into(),
            "install the certificate of that authority on this computer, or let the person who runs the \
             hub get one of a public authority",
        ),
        E::BadSignature => ("has a wrong signature".into(), TRY_AGAIN),
        E::BadEncoding | E::UnhandledCriticalExtension => ("cannot be read".into(), NEW_ONE),
        E::UnsupportedSignatureAlgorithmContext { .. }
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            ("is signed in a way that is not supported, perhaps an unsafe one".into(), NEW_ONE)
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            ("was not issued for servers".into(), NEW_ONE)
        }
        E::UnknownRevocationStatus
        | E::ExpiredRevocationList
        | E::ExpiredRevocationListContext { .. }
        | E::InvalidOcspResponse => {
            ("may have been revoked, which could not be found out".into(), TRY_AGAIN)
        }
        E::Other(OtherError(why)) if why.is::<SelfSigned>() => (
            "is signed by nobody but the hub itself".into(),
            "let the person who runs the hub get one of an authority that this computer trusts, a public \
             one or your own",
        ),
        other if is_ca_as_end_entity(&Error::InvalidCertificate(other.clone())) => {
            ("is one of an authority and not of a server".into(), NEW_ONE)
        }
        other => (format!("was refused ({other})"), NEW_ONE),
    };
    (what, way_out.to_owned())
}

/// The hosts that a certificate is for. The text is untrusted input.
fn presented_names(presented: &[String]) -> String {
    // rustls writes `DnsName("a.example")` and `IpAddress(192.0.2.1)`.
    let name = |text: &String| -> String {
        let text = text.split_once('(').map_or(text.as_str(), |(_, name)| name);
        let name = text.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | ')'));
        name.take(MAX_NAME).collect()
    };
    let shown: Vec<_> = presented.iter().take(MAX_NAMES).map(name).collect();
    match (shown.len(), presented.len()) {
        (0, _) => "names no host".to_owned(),
        (shown_count, all) if shown_count < all => {
            format!("is for other hosts: {} and {} more", shown.join(", "), all - shown_count)
        }
        _ => format!("is for another host: {}", shown.join(", ")),
    }
}

/// `3 March 2026`, in UTC.
fn date(time: &UnixTime) -> String {
    let date = i64::try_from(time.as_secs()).ok().and_then(|s| DateTime::from_timestamp(s, 0));
    date.map_or_else(|| "another day".to_owned(), |date| date.format("%-d %B %Y").to_string())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use rustls::pki_types::ServerName;

    use super::*;

    fn message(error: &CertificateError) -> String {
        certificate_refused(&"https://hub.example".parse().unwrap(), error)
    }

    #[test]
    fn every_fault_of_a_certificate_is_named_with_a_way_out() {
        use CertificateError as E;
        let day = UnixTime::since_unix_epoch(Duration::from_secs(1_772_496_000));
        let presented = |names: &[&str]| E::NotValidForNameContext {
            expected: ServerName::try_from("hub.example").unwrap(),
            presented: names.iter().map(|&name| name.to_owned()).collect(),
        };
        for (error, what, way_out) in [
            (E::Expired, "expired", "renew"),
            (E::ExpiredContext { time: day, not_after: day }, "expired on 3 March 2026", "renew"),
            (E::NotValidYet, "not valid yet", "date and time"),
            (
                E::NotValidYetContext { time: day, not_before: day },
                "not valid before 3 March 2026",
                "date and time",
            ),
            (E::Revoked, "revoked", "replace"),
            (E::NotValidForName, "another host name", "address"),
            (presented(&["DnsName(\"a.example\")"]), "another host: a.example, so", "address"),
            (
                presented(&["DnsName(\"a\")", "IpAddress(192.0.2.1)", "x\u{1b}[1m", "b"]),
                "other hosts: a, 192.0.2.1, x[1m and 1 more",
                "address",
            ),
            (presented(&[]), "names no host", "address"),
            (E::UnknownIssuer, "authority that this computer does not know", "install"),
            (E::Other(OtherError(Arc::new(SelfSigned))), "nobody but the hub itself", "authority"),
            (
                E::Other(OtherError(Arc::new(webpki::Error::CaUsedAsEndEntity))),
                "of an authority and not of a server",
                "replace",
            ),
            (E::BadSignature, "wrong signature", "network"),
            (E::BadEncoding, "cannot be read", "replace"),
            (E::InvalidPurpose, "not issued for servers", "replace"),
            (E::UnknownRevocationStatus, "may have been revoked", "network"),
            (E::ApplicationVerificationFailure, "was refused", "replace"),
        ] {
            let text = message(&error);
            assert!(text.starts_with("the certificate of the hub https://hub.example:443 "));
            assert!(text.contains(what) && text.contains(way_out), "{error:?}: {text}");
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
    }
}
