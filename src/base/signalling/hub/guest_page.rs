//! The page by which a browser joins a session, and its files (`assets/guest`). Pure.

use std::{fmt::Write as _, sync::LazyLock};

use bytes::Bytes;
use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};
use sha2::{Digest, Sha256};
use url::Url;

use super::{
    host_and_origin::HostNames,
    http::{self, HttpResponse},
};
use crate::model::{HubUrl, SessionId};

/// The text of a file of the page, as it is in the sources.
macro_rules! source {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/", $name))
    };
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The name, type and source of each file beside the page itself.
const SOURCES: [(&str, &str, &str); 11] = [
    ("app.js", JAVASCRIPT, source!("guest/app.js")),
    ("beat.js", JAVASCRIPT, source!("guest/beat.js")),
    ("chat.js", JAVASCRIPT, source!("guest/chat.js")),
    ("devices.js", JAVASCRIPT, source!("guest/devices.js")),
    ("member.js", JAVASCRIPT, source!("guest/member.js")),
    ("room.js", JAVASCRIPT, source!("guest/room.js")),
    ("view.js", JAVASCRIPT, source!("guest/view.js")),
    ("wire.js", JAVASCRIPT, source!("guest/wire.js")),
    ("words.js", JAVASCRIPT, source!("guest/words.js")),
    ("guest.css", "text/css; charset=utf-8", source!("guest/guest.css")),
    ("icon.svg", "image/svg+xml", source!("icon.svg")),
];

/// The page. `{{files}}` is the way to the files, `{{session}}` the id, `{{link}}` the link.
static SHELL: LazyLock<String> = LazyLock::new(|| compact(source!("guest/index.html"), false));

static FILES: LazyLock<GuestFiles> = LazyLock::new(GuestFiles::load);

/// The files that the page consists of.
struct GuestFiles {
    /// Of all of them: they are kept by browsers, and a hub of another version has other ones.
    hash: String,
    files: Vec<GuestFile>,
}

/// A file of the page.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct GuestFile {
    name: &'static str,
    media_type: &'static str,
    text: Bytes,
}

impl GuestFiles {
    fn load() -> Self {
        let file = |(name, media_type, source)| GuestFile {
            name,
            media_type,
            text: compact(source, name.ends_with(".js") || name.ends_with(".css")).into(),
        };
        let files: Vec<_> = SOURCES.map(file).into();
        let mut digest = Sha256::new();
        for file in &files {
            digest.update(file.name);
            digest.update(&file.text);
        }
        let mut hash = String::new();
        for byte in &digest.finalize()[..6] {
            let _ = write!(hash, "{byte:02x}");
        }
        Self { hash, files }
    }
}

/// The file at a path that ends in `/guest/HASH/NAME`.
pub(super) fn file_at(path: &str) -> Option<&'static GuestFile> {
    let (_, end) = path.rsplit_once("/guest/")?;
    let (hash, name) = end.split_once('/')?;
    let all = &*FILES;
    all.files.iter().find(|file| hash == all.hash && name == file.name)
}

impl GuestFile {
    /// The response, which browsers keep.
    pub(super) fn response(&self) -> HttpResponse {
        let mut response = http::response(self.media_type, self.text.clone());
        let cache = HeaderValue::from_static("public, max-age=31536000, immutable");
        response.headers_mut().insert(header::CACHE_CONTROL, cache);
        response
    }
}

/// The page of a session. It is the same whether the session is open or not, and tells programs
/// without scripts how to join.
pub(super) fn page(
    session: &SessionId,
    (link_base, names): (&HubUrl, &HostNames),
    (path, headers): (&str, &HeaderMap),
) -> HttpResponse {
    // Relative, since a proxy may add a prefix that the hub does not know.
    let up = if path.ends_with('/') { "../../" } else { "../" };
    let text = SHELL
        .replace("{{files}}", &format!("{up}guest/{}/", FILES.hash))
        .replace("{{session}}", session.as_str())
        .replace("{{link}}", &http::escape_html(&link_base.link(session).to_string()));
    let mut response = http::response("text/html; charset=utf-8", text.into());
    let policy = policy(&socket_origins(headers, names));
    let policy = HeaderValue::try_from(policy).expect("hosts are visible ASCII");
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            HeaderValue::from_static("same-origin"),
        ),
        (
            HeaderName::from_static("permissions-policy"),
            HeaderValue::from_static("camera=(self), microphone=(self), display-capture=(self)"),
        ),
    ] {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The content security policy of the page: its own files and its own hub, no script in the page,
/// and no text that becomes HTML.
fn policy(sockets: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
         media-src 'self' blob: mediastream:; connect-src 'self'{sockets}; worker-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types quintet"
    )
}

/// The origins of the hub's WebSocket, each after a space: older versions of Safari do not count
/// them as `'self'`. Call it after [`super::host_and_origin::check_host`].
fn socket_origins(headers: &HeaderMap, names: &HostNames) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    // A policy cannot name an IPv6 address.
    let host = host.filter(|host| !host.starts_with('['));
    let mut origins = host.map(|host| format!(" ws://{host} wss://{host}")).unwrap_or_default();
    // A proxy may have replaced the host.
    let public = names.public.as_ref().and_then(|public| Url::parse(public.as_str()).ok());
    if let Some(public) = public.as_ref().and_then(|url| url.host_str().map(|host| (url, host)))
        && !public.1.starts_with('[')
    {
        let scheme = if public.0.scheme() == "https" { "wss" } else { "ws" };
        let port = public.0.port().map(|port| format!(":{port}")).unwrap_or_default();
        let _ = write!(origins, " {scheme}://{}{port}", public.1);
    }
    origins
}

/// Punctuation that needs no space beside it, in JavaScript and in CSS.
const PUNCTUATION: [char; 13] = ['{', '}', ';', ',', ':', '=', '<', '>', '?', '&', '|', '!', '*'];

/// A file of the page without what is for those who read the sources, a quarter of it: indentation,
/// lines that are comments, and in code spaces beside punctuation. Lines with anything but simple quotes
/// keep their spaces, so that no text and no regular expression changes.
fn compact(source: &str, is_code: bool) -> String {
    let (mut text, mut in_comment) = (String::new(), false);
    for line in source.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if in_comment || line.starts_with("/**") {
            in_comment = !line.ends_with("*/");
        } else if !line.starts_with("// ") {
            let is_plain = is_code && !line.contains(['"', '`', '/', '\\']);
            text.push_str(&if is_plain { without_spaces(line) } else { line.to_owned() });
            text.push('\n');
        }
    }
    text
}

/// A line without spaces beside punctuation outside of simple quotes.
fn without_spaces(line: &str) -> String {
    let mut tight = String::with_capacity(line.len());
    for (at, part) in line.split('\'').enumerate() {
        if at > 0 {
            tight.push('\'');
        }
        let is_quoted = at % 2 == 1;
        for c in part.chars() {
            if !is_quoted && PUNCTUATION.contains(&c) {
                tight.truncate(tight.trim_end_matches(' ').len());
            }
            if is_quoted || c != ' ' || !tight.ends_with(PUNCTUATION) {
                tight.push(c);
            }
        }
    }
    tight
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most bytes of the page and its files in sum.
    const MAX_BYTES: usize = 60 * 1024;

    #[test]
    fn the_page_is_small() {
        let files: usize = FILES.files.iter().map(|file| file.text.len()).sum();
        let all = files + SHELL.len();
        println!("{all} bytes");
        assert!(all <= MAX_BYTES, "{all} bytes");
    }

    #[test]
    fn every_file_that_another_one_names_is_served() {
        let sources = SOURCES.iter().map(|(_, _, source)| *source).chain([SHELL.as_str()]);
        let mut named = 0;
        for source in sources {
            let quoted = source.split(['\'', '"', '}']).map(|name| name.trim_start_matches("./"));
            for name in quoted.filter(|name| name.ends_with(".js") || name.ends_with(".css")) {
                named += 1;
                let path = format!("/guest/{}/{name}", FILES.hash);
                assert!(file_at(&path).is_some(), "{name}");
            }
        }
        assert!(named > 10, "{named}");
        for path in ["/guest/app.js", "/guest/000000000000/app.js", "/app.js"] {
            assert_eq!(file_at(path), None, "{path}");
        }
    }

    #[test]
    fn nothing_is_in_the_page_that_its_policy_forbids() {
        for forbidden in
            [" style=", " onclick=", "<style", "<script>", "javascript:", "http://", "https://"]
        {
            assert!(!SHELL.contains(forbidden), "{forbidden}");
        }
        for (name, _, source) in SOURCES.iter().filter(|(name, _, _)| name.ends_with(".js")) {
            for forbidden in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "document.write"]
            {
                assert!(!source.contains(forbidden), "{name}: {forbidden}");
            }
        }
    }

    #[test]
    fn what_is_for_readers_of_the_sources_is_left_out() {
        let source =
            "// A comment.\na {\n  b: c;\n}\n\n/** One\n * and another. */\nd // kept : so\n";
        assert_eq!(compact(source, true), "a{\nb:c;\n}\nd // kept : so\n");
        for (line, served) in [
            ("const { a } = b ?? 'c : d', e = -1;", "const{a}=b??'c : d',e=-1;"),
            ("if (a - 1 > b && !c) return { d };", "if (a - 1>b&&!c) return{d};"),
            ("x = `a : ${b}`", "x = `a : ${b}`"),
            (r"x = /a , b/ ? 1 : 2", r"x = /a , b/ ? 1 : 2"),
            ("width: calc(100% - 2px), min(1px, 2%)", "width:calc(100% - 2px),min(1px,2%)"),
        ] {
            assert_eq!(compact(line, true), format!("{served}\n"));
            assert_eq!(compact(line, false), format!("{line}\n"));
        }
    }

    #[test]
    fn a_page_shows_the_command_and_escapes_the_link() {
        let session = SessionId::parse("town-hall").unwrap();
        let base: HubUrl = "http://192.168.1.5:7340/x'&y".parse().unwrap();
        let names = HostNames { public: None, machine: None };
        let hub = (&base, &names);
        let text = |path| format!("{:?}", page(&session, hub, (path, &HeaderMap::new())).body());
        let shell = text("/s/town-hall");
        let command = "quintet join http://192.168.1.5:7340/x&#39;&amp;y/s/town-hall<";
        assert!(shell.contains(command) && shell.contains("paste it into the box"), "{shell}");
        assert!(shell.contains("=\\\"../guest/") && !shell.contains("{{"), "{shell}");
        assert!(text("/s/town-hall/").contains("=\\\"../../guest/"));
    }

    #[test]
    fn a_policy_names_the_sockets_of_the_host_and_of_the_public_name() {
        let origins = |host: &str, public: &str| {
            let headers = HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
            let public = (!public.is_empty()).then(|| public.parse().unwrap());
            socket_origins(&headers, &HostNames { public, machine: None })
        };
        assert_eq!(origins("localhost:7340", ""), " ws://localhost:7340 wss://localhost:7340");
        assert_eq!(origins("[::1]:7340", ""), "");
        assert_eq!(
            origins("192.0.2.1", "https://hub.example/calls"),
            " ws://192.0.2.1 wss://192.0.2.1 wss://hub.example"
        );
        assert_eq!(origins("[::1]", "http://hub.example:7340"), " ws://hub.example:7340");
    }
}
