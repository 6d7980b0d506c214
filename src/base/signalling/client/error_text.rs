//! Sentences for people about a failed connection: what happened, why, and what to do.

use std::{io, time::Duration};

use tokio_tungstenite::tungstenite::{self, error::ProtocolError, http::StatusCode};

use super::{
    certificate,
    connect::{ConnectError, RefusedRedirect},
    tls,
};
use crate::{
    model::{HubUrl, clean_sentence},
    signalling::dial::DialError,
};

/// A connection could not be made.
pub(super) fn failed(hub: &HubUrl, error: &ConnectError) -> String {
    match error {
        ConnectError::Dial(DialError::Unknown(error)) => format!(
            "no address is known for the host name in {hub}: check the address and the network \
             ({error})"
        ),
        ConnectError::Dial(DialError::Unreachable(error)) => cannot_reach(hub, error),
        ConnectError::Tls(error) => insecure(hub, error),
        ConnectError::Handshake(error) => handshake_failed(hub, error),
    }
}

/// TLS failed.
fn insecure(hub: &HubUrl, error: &io::Error) -> String {
    use rustls::Error::{
        AlertReceived, InvalidCertificate, InvalidMessage, NoCertificatesPresented,
        PeerIncompatible,
    };
    let Some(fault) = tls::tls_error(error) else {
        return no_hub(hub, &format!("no encrypted connection can be made ({error})"));
    };
    if let InvalidCertificate(error) = fault {
        return certificate::certificate_refused(hub, error);
    }
    if matches!(fault, NoCertificatesPresented) {
        return format!("the hub {hub} shows no certificate, so it cannot be trusted");
    }
    if matches!(fault, InvalidMessage(_)) {
        return no_hub(hub, "what answers there does not use https");
    }
    if matches!(fault, PeerIncompatible(_)) {
        return format!(
            "the hub {hub} offers only encryption that is not safe any more: the person who runs it \
             must allow TLS 1.2 or 1.3"
        );
    }
    if let AlertReceived(alert) = fault {
        return format!(
            "the hub {hub} refused an encrypted connection ({alert:?}); check the address, or ask \
             the person who runs it"
        );
    }
    format!("no encrypted connection to the hub {hub} can be made: {fault}; check the address")
}

/// A hub is there, but it does not use TLS.
pub(super) fn not_encrypted(hub: &HubUrl, plain: &HubUrl) -> String {
    format!(
        "the hub at {hub} does not use https; its address is {plain}, where others on the way can \
         read and change what is said to the hub"
    )
}

/// The hub redirects to an address that the client refuses.
pub(super) fn refused_redirect(hub: &HubUrl, redirect: &RefusedRedirect) -> String {
    match redirect {
        RefusedRedirect::Unencrypted(to) => format!(
            "the hub {hub} sends us to {to}, where the connection would not be encrypted any \
             more; use that address yourself if you trust the network"
        ),
        RefusedRedirect::ToLoopback(to) => format!(
            "the hub {hub} sends us to {to}, which is this computer; use that address yourself if \
             you mean it"
        ),
        RefusedRedirect::NotAHub(to) => {
            no_hub(hub, &format!("it sends us to {}", clean_sentence(to)))
        }
    }
}

/// The hub redirects too often.
pub(super) fn redirect_loop(hub: &HubUrl) -> String {
    no_hub(hub, "it sends us from one address to another without end")
}

/// The WebSocket handshake failed.
pub(super) fn handshake_failed(hub: &HubUrl, error: &tungstenite::Error) -> String {
    if let tungstenite::Error::Io(error) = error {
        return cannot_reach(hub, error);
    }
    if let tungstenite::Error::Http(response) = error {
        let status = response.status();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return format!("the hub {hub} has too many connections; wait, or choose another hub");
        }
        if status == StatusCode::MISDIRECTED_REQUEST {
            return unknown_host_name(hub);
        }
        return no_hub(hub, &format!("it answers HTTP {status}"));
    }
    no_hub(hub, &plain_reason(error))
}

/// An open connection broke.
pub(super) fn broken(hub: &HubUrl, error: &tungstenite::Error) -> String {
    lost(hub, &plain_reason(error))
}

/// What went wrong, in everyday words for the most frequent errors.
fn plain_reason(error: &tungstenite::Error) -> String {
    use tungstenite::Error::{AlreadyClosed, ConnectionClosed, Io, Protocol};
    if let Io(error) = error {
        return error.to_string();
    }
    let reset = matches!(error, Protocol(ProtocolError::ResetWithoutClosingHandshake));
    if reset || matches!(error, AlreadyClosed | ConnectionClosed) {
        return "its program ended, or the network broke".to_owned();
    }
    let is_other_protocol =
        matches!(error, Protocol(ProtocolError::WrongHttpVersion | ProtocolError::WrongHttpMethod));
    if is_other_protocol {
        return "another kind of server answers there".to_owned();
    }
    error.to_string()
}

/// The hub does not answer to the host name in its address.
fn unknown_host_name(hub: &HubUrl) -> String {
    format!(
        "the hub at {hub} does not answer to that host name: let the person who runs it start it with \
         --public-url {hub}, or use its IP address instead of the name"
    )
}

/// The server is not a Quintet hub.
pub(super) fn no_hub(hub: &HubUrl, why: &str) -> String {
    format!("{hub} is no Quintet hub: {why}; check the address, or choose another hub")
}

/// The hub answered `hello` with an error.
pub(super) fn hello_refused(hub: &HubUrl, message: &str) -> String {
    format!("the hub {hub} refused the connection: {}", clean_sentence(message))
}

/// The hub is not this user's, and no other is accepted.
pub(super) fn not_own_hub(hub: &HubUrl) -> String {
    format!(
        "what answers at {hub} does not prove to be your hub: another user's program may have taken \
         its place; your own is looked for. To use that one, name it with --hub"
    )
}

/// No answer within the time limit.
pub(super) fn no_answer(hub: &HubUrl) -> String {
    format!(
        "the hub {hub} does not answer; check the address and the network, or choose another \
         hub"
    )
}

/// An open connection was lost.
pub(super) fn lost(hub: &HubUrl, why: &str) -> String {
    format!("the connection to the hub {hub} was lost: {why}; what is connected goes on")
}

/// This machine no longer has the address of the connection.
pub(super) fn address_gone(hub: &HubUrl) -> String {
    lost(hub, "the address of this computer has changed")
}

/// The hub was silent for too long.
pub(super) fn hub_silent(hub: &HubUrl, silence: Duration) -> String {
    lost(hub, &format!("the hub was silent for {} s", silence.as_secs_f32()))
}

fn cannot_reach(hub: &HubUrl, error: &io::Error) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::TimedOut {
        return no_answer(hub);
    }
    if kind == io::ErrorKind::ConnectionRefused {
        return format!("nobody answers at {hub}: check the address, or start a hub there");
    }
    format!("the hub {hub} cannot be reached: {error}; check the address and the network")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_errors_are_explained_without_protocol_terms() {
        let hub: HubUrl = "10.0.0.1".parse().unwrap();
        let protocol = tungstenite::Error::Protocol;
        let reset = broken(&hub, &protocol(ProtocolError::ResetWithoutClosingHandshake));
        assert!(reset.contains("http://10.0.0.1:7340 was lost: its program ended"), "{reset}");
        let other = handshake_failed(&hub, &protocol(ProtocolError::WrongHttpVersion));
        assert!(other.contains("is no Quintet hub: another kind of server"), "{other}");
        for text in [reset, other] {
            assert!(!text.contains("WebSocket") && !text.contains("HTTP"), "{text}");
        }
    }
}
