//! The page by which a browser joins a session, as a hub serves it.

use super::http_exchange;
use crate::rig::in_process_hub::{start_hub, with_timeout};

/// The head and the body of the response to a request for `path`.
async fn get(hub: &quintet::signalling::Hub, path: &str) -> (String, String) {
    let fields = "Host: localhost\r\nConnection: close";
    let request = format!("GET {path} HTTP/1.1\r\n{fields}\r\n\r\n");
    let answer = http_exchange(hub.address(), &request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The files that a page names, as paths at the hub.
fn files(page: &str) -> Vec<String> {
    let named = page.split('"').filter_map(|name| name.strip_prefix("../guest/"));
    named.map(|name| format!("/calls/guest/{name}")).collect()
}

#[tokio::test]
async fn a_page_and_its_files_are_served_behind_any_prefix() {
    with_timeout(async {
        let hub = start_hub().await;
        let (head, page) = get(&hub, "/calls/s/town-hall").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let files = files(&page);
        assert!(files.len() > 3, "{page}");
        for (end, media_type) in
            [("app.js", "text/javascript"), ("guest.css", "text/css"), ("icon.svg", "image/svg")]
        {
            let path = files.iter().find(|path| path.ends_with(end)).expect(end);
            let (head, text) = get(&hub, path).await;
            assert!(head.contains(&format!("content-type: {media_type}")), "{head}");
            assert!(head.contains("cache-control: public, max-age=31536000, immutable"), "{head}");
            assert!(head.contains("x-content-type-options: nosniff") && !text.is_empty());
        }
        let other = files[0].replace("guest/", "guest/0");
        assert!(get(&hub, &other).await.0.starts_with("HTTP/1.1 404 "), "{other}");
    })
    .await;
}

#[tokio::test]
async fn a_page_may_use_nothing_but_its_own_hub() {
    with_timeout(async {
        let hub = start_hub().await;
        let (head, page) = get(&hub, "/s/town-hall").await;
        for field in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; ",
            "connect-src 'self' ws://localhost wss://localhost; ",
            "frame-ancestors 'none'; require-trusted-types-for 'script'",
            "cache-control: no-cache\r\n",
            "cross-origin-opener-policy: same-origin\r\n",
            "permissions-policy: camera=(self), microphone=(self), display-capture=(self)\r\n",
            "referrer-policy: no-referrer\r\n",
            "x-content-type-options: nosniff\r\n",
        ] {
            assert!(format!("{head}\r\n").contains(field), "{field}: {head}");
        }
        assert!(!head.contains("unsafe-inline") && !head.contains("strict-transport"), "{head}");
        assert!(!page.contains("//localhost") && !page.contains("<script>"), "{page}");
    })
    .await;
}

#[tokio::test]
async fn a_page_tells_those_without_scripts_how_to_join_with_the_program() {
    with_timeout(async {
        let hub = start_hub().await;
        let (_, page) = get(&hub, "/s/town-hall").await;
        let command = format!("quintet join {}/s/town-hall<", hub.link_base());
        assert!(page.contains(&command), "{page}");
        // It shows neither whether the session is open nor what it is.
        assert_eq!(get(&hub, "/s/other").await.1.replace("other", "town-hall"), page);
    })
    .await;
}

/// Runs the tests of what the page decides, if this machine has Node.
#[test]
fn the_page_decides_and_says_what_its_tests_expect() {
    let tests = ["chat", "room", "words"].map(|name| format!("tests/guest/{name}.test.mjs"));
    let output = match std::process::Command::new("node").arg("--test").args(tests).output() {
        Ok(output) => output,
        Err(error) => return println!("skipped, since there is no Node: {error}"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
