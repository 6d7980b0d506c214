//! Which endpoint of the hub a path names, and which methods it has. Pure.

use hyper::Method;

use super::{
    guest_page::{self, GuestFile},
    http::Refusal,
};
use crate::model::SessionId;

/// An endpoint of the hub.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Route {
    /// `BASE/`: says that this is a hub.
    Root,
    /// `BASE/signal`: the WebSocket.
    Signal,
    /// `BASE/s/ID`: the page of a session.
    SessionPage(SessionId),
    /// `BASE/s/ID/about`: what anybody may learn of a session.
    About(SessionId),
    /// `BASE/guest/HASH/NAME`: a file of the page of a session.
    GuestFile(&'static GuestFile),
    /// `BASE/s/…` with something that cannot be an id.
    BrokenLink,
}

impl Route {
    /// The endpoint at a path.
    ///
    /// A proxy may add any prefix, and the hub is not told which. So the end of the path decides,
    /// and a link is cut at its last `/s/` (`PROTOCOL.md`, "Connections"). `/s/signal` is the page
    /// of a session that is called so, except for a WebSocket handshake, whose prefix is `/s`: no
    /// page begins one. `/s/s/about` is about the session `s`, rather than the page of a session
    /// `about` behind the prefix `/s`.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if there is nothing.
    pub(super) fn of(path: &str, is_handshake: bool) -> Result<Self, Refusal> {
        if path.ends_with("/signal") && (is_handshake || !path.ends_with("/s/signal")) {
            return Ok(Self::Signal);
        }
        if let Some(session) = path.strip_suffix("/about").and_then(linked_session) {
            return Ok(Self::About(session));
        }
        if let Some(file) = guest_page::file_at(path) {
            return Ok(Self::GuestFile(file));
        }
        // A session link may end in a slash, unless the id is empty then.
        let trimmed = path.strip_suffix('/').unwrap_or(path);
        if let Some((_, id)) = trimmed.rsplit_once("/s/").filter(|(_, id)| !id.contains('/')) {
            return Ok(SessionId::parse(id).map_or(Self::BrokenLink, Self::SessionPage));
        }
        if trimmed.ends_with("/s") {
            return Ok(Self::BrokenLink);
        }
        if path.ends_with('/') { Ok(Self::Root) } else { Err(Refusal::NotFound) }
    }

    /// Checks that the endpoint has a method. `HEAD` is `GET` without the body (RFC 9110, section
    /// 9.3.2).
    ///
    /// # Errors
    /// [`Refusal::NoSuchMethod`] with the methods that it has.
    pub(super) fn check_method(&self, method: &Method) -> Result<(), Refusal> {
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        let methods = self.methods();
        methods.contains(wanted).then_some(()).ok_or(Refusal::NoSuchMethod(methods))
    }

    /// The methods besides `HEAD`. One with a body gets it whole, see `http::read_body`.
    const fn methods(&self) -> &'static [Method] {
        match self {
            Self::Root
            | Self::Signal
            | Self::SessionPage(_)
            | Self::About(_)
            | Self::GuestFile(_)
            | Self::BrokenLink => &[Method::GET],
        }
    }
}

/// The session whose link ends a path.
fn linked_session(path: &str) -> Option<SessionId> {
    path.rsplit_once("/s/").and_then(|(_, id)| SessionId::parse(id).ok())
}

/// The value of the field `Allow` for these methods of an endpoint.
pub(super) fn allow(methods: &[Method]) -> String {
    let head = methods.contains(&Method::GET).then_some("HEAD");
    let all: Vec<&str> = methods.iter().map(Method::as_str).chain(head).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(id: &str) -> Result<Route, Refusal> {
        Ok(Route::SessionPage(SessionId::parse(id).unwrap()))
    }

    #[test]
    fn only_the_end_of_the_path_counts() {
        for path in ["/s/a", "/s/a/", "/quintet/s/a", "/x/y/s/a", "/signal/s/a"] {
            assert_eq!(Route::of(path, false), page("a"), "{path}");
        }
        assert_eq!(Route::of("/s/s/s/s", false), page("s"));
        for path in ["/s/", "/s", "/x/s/", "/x/s", "/s//", "/s/-a", "/s/%3Cb%3E"] {
            assert_eq!(Route::of(path, false), Ok(Route::BrokenLink), "{path}");
        }
        for path in ["/s/a/b", "/favicon.ico", "/x", "/signals", "/xsignal", "", "*"] {
            assert_eq!(Route::of(path, false), Err(Refusal::NotFound), "{path}");
        }
        for path in ["/", "/quintet/", "/signal/", "/s/a/b/"] {
            assert_eq!(Route::of(path, false), Ok(Route::Root), "{path}");
        }
        for path in ["/signal", "/quintet/signal", "/x/y/signal"] {
            assert_eq!(Route::of(path, false), Ok(Route::Signal), "{path}");
            assert_eq!(Route::of(path, true), Ok(Route::Signal), "{path}");
        }
    }

    #[test]
    fn a_session_called_signal_has_a_page_and_a_proxy_may_add_the_prefix_s() {
        for path in ["/s/signal", "/quintet/s/signal"] {
            assert_eq!(Route::of(path, false), page("signal"), "{path}");
            assert_eq!(Route::of(path, true), Ok(Route::Signal), "{path}");
        }
        assert_eq!(Route::of("/s/signal/", false), page("signal"));
    }

    #[test]
    fn what_is_said_about_a_session_is_below_its_link() {
        let about = |id: &str| Ok(Route::About(SessionId::parse(id).unwrap()));
        for (path, id) in [
            ("/s/a/about", "a"),
            ("/quintet/s/a/about", "a"),
            ("/s/signal/about", "signal"),
            ("/s/about/about", "about"),
            ("/s/s/about", "s"),
        ] {
            assert_eq!(Route::of(path, false), about(id), "{path}");
        }
        for path in ["/s/about", "/s/about/", "/quintet/s/about"] {
            assert_eq!(Route::of(path, false), page("about"), "{path}");
        }
        for path in ["/about", "/s//about", "/s/-a/about", "/s/a/b/about"] {
            assert_eq!(Route::of(path, false), Err(Refusal::NotFound), "{path}");
        }
    }

    #[test]
    fn a_handshake_changes_no_other_path() {
        for path in ["/", "/s/a", "/s/", "/s/signals", "/s/signal/"] {
            assert_eq!(Route::of(path, true), Route::of(path, false), "{path}");
        }
    }

    #[test]
    fn head_is_allowed_where_get_is() {
        let route = page("a").unwrap();
        assert_eq!(route.check_method(&Method::HEAD), Ok(()));
        let Err(Refusal::NoSuchMethod(methods)) = route.check_method(&Method::DELETE) else {
            panic!("a page cannot be deleted");
        };
        assert_eq!(allow(methods), "GET, HEAD");
        assert_eq!(allow(&[Method::POST, Method::PATCH]), "POST, PATCH");
    }
}
