//! Why there is no connection, for a person: what, why, and the way out.

use std::{io, time::Duration};

use tokio_tungstenite::tungstenite::{self, error::ProtocolError, http::StatusCode};

use crate::model::HubUrl;

/// A connection could not be made.
pub(super) fn refused(hub: &HubUrl, error: &tungstenite::Error) -> String {
    if let tungstenite::Error::Io(error) = error {
        return unreachable(hub, error);
    }
    if let tungstenite::Error::Http(response) = error {
        let status = response.status();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return format!("the hub {hub} has too many connections; wait, or choose another hub");
        }
        return no_hub(hub, &format!("it answers HTTP {status}"));
    }
    if let tungstenite::Error::Tls(error) = error {
        return format!(
            "the hub {hub} cannot be trusted: {error}; check its certificate and the address"
        );
    }
    no_hub(hub, &plainly(error))
}

/// A connection that was up broke.
pub(super) fn broken(hub: &HubUrl, error: &tungstenite::Error) -> String {
    lost(hub, &plainly(error))
}

/// What went wrong, without the words of the protocol where it is what people meet.
fn plainly(error: &tungstenite::Error) -> String {
    use tungstenite::Error::{AlreadyClosed, ConnectionClosed, Io, Protocol};
    if let Io(error) = error {
        return error.to_string();
    }
    let reset = matches!(error, Protocol(ProtocolError::ResetWithoutClosingHandshake));
    if reset || matches!(error, AlreadyClosed | ConnectionClosed) {
        return "its program ended, or the network broke".to_owned();
    }
    let speaks_otherwise =
        matches!(error, Protocol(ProtocolError::WrongHttpVersion | ProtocolError::WrongHttpMethod));
    if speaks_otherwise {
        return "another kind of server answers there".to_owned();
    }
    error.to_string()
}

/// Something is there that does not speak as a hub does.
pub(super) fn no_hub(hub: &HubUrl, why: &str) -> String {
    format!("{hub} is no Quintet hub: {why}; check the address, or choose another hub")
}

/// The hub answered hello with an error.
pub(super) fn unwelcome(hub: &HubUrl, message: &str) -> String {
    format!("the hub {hub} refused the connection: {message}")
}

/// Nothing came back in time.
pub(super) fn no_answer(hub: &HubUrl) -> String {
    format!(
        "the hub {hub} does not answer; check the address and the network, or choose another \
         hub"
    )
}

/// A connection that was up is not any more.
pub(super) fn lost(hub: &HubUrl, why: &str) -> String {
    format!("the connection to the hub {hub} was lost: {why}; what is connected goes on")
}

/// A connection that was up said nothing for so long.
pub(super) fn silent(hub: &HubUrl, silence: Duration) -> String {
    lost(hub, &format!("the hub was silent for {} s", silence.as_secs_f32()))
}

fn unreachable(hub: &HubUrl, error: &io::Error) -> String {
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
    fn what_people_meet_is_told_without_the_words_of_the_protocol() {
        let hub: HubUrl = "10.0.0.1".parse().unwrap();
        let protocol = tungstenite::Error::Protocol;
        let reset = broken(&hub, &protocol(ProtocolError::ResetWithoutClosingHandshake));
        assert!(reset.contains("http://10.0.0.1:7340 was lost: its program ended"), "{reset}");
        let other = refused(&hub, &protocol(ProtocolError::WrongHttpVersion));
        assert!(other.contains("is no Quintet hub: another kind of server"), "{other}");
        for text in [reset, other] {
            assert!(!text.contains("WebSocket") && !text.contains("HTTP"), "{text}");
        }
    }
}
