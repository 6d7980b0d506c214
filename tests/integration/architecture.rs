//! Checks rules that the compiler cannot check: which module may import which, what pure code must
//! not use, how long a file may be, and that README lists the licences of the dependencies.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The modules of both crates, and for each the modules that it may import (drawn in
/// ARCHITECTURE.md).
const ALLOWED_IMPORTS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("supervision", &[]),
    ("saved_inputs", &[]),
    ("media", &["model", "supervision"]),
    ("devices", &[]),
    ("network", &[]),
    ("process", &[]),
    ("conference", &["model"]),
    ("bandwidth", &["model"]),
    ("audio", &["media", "model"]),
    ("files", &["media"]),
    ("capture", &["audio", "devices", "files", "media", "model", "supervision"]),
    ("encode", &["audio", "media", "model", "supervision"]),
    ("transport", &["bandwidth", "media", "model", "network", "process", "supervision"]),
    ("playback", &["audio", "devices", "files", "media", "model", "supervision"]),
    ("signalling", &["model", "network", "process", "supervision"]),
    (
        "engine",
        &[
            "audio",
            "bandwidth",
            "capture",
            "conference",
            "devices",
            "encode",
            "files",
            "media",
            "model",
            "network",
            "playback",
            "process",
            "signalling",
            "transport",
            "supervision",
        ],
    ),
    ("wording", &["model"]),
    ("ui", &["devices", "engine", "media", "model", "process", "supervision", "wording"]),
    ("bench", &["engine", "media", "model", "wording"]),
    (
        "cli",
        &[
            "bench",
            "capture",
            "devices",
            "engine",
            "files",
            "media",
            "model",
            "network",
            "playback",
            "process",
            "signalling",
            "supervision",
            "wording",
        ],
    ),
];

/// Files and folders whose code must not use clocks, threads, sockets, files or the runtime.
const PURE_PATHS: &[&str] = &[
    "model",
    "conference",
    "audio",
    "bandwidth",
    "signalling/rooms",
    "wording",
    "playback/jitter",
    "playback/concealment.rs",
    "playback/playout_clock.rs",
    "playback/remote_clock.rs",
    "playback/h264_depacketizer.rs",
    "playback/sps.rs",
    "playback/video_receive_buffer.rs",
    "playback/receive_stats.rs",
];

/// The names that pure code must not use.
const IMPURE_NAMES: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "std::thread",
    "std::net",
    "std::fs",
    "std::io",
    "std::env",
    "tokio",
    "media::now",
    "getrandom",
    "Mutex",
    "println!",
];

/// The modules that run in virtual time.
const ONE_CLOCK: &[&str] = &["media", "transport", "playback", "encode"];

/// Their files that need the date, or are tests.
const OTHER_CLOCKS: &[&str] = &[
    "media/clock.rs",
    "transport/rtp_dump.rs",
    "transport/stats/rtp_streams/tests.rs",
    "transport/tap/tests.rs",
];

/// The most lines of a file.
const MAX_LINES: usize = 600;

#[test]
fn every_import_points_down() {
    let arrows: BTreeMap<_, _> = ALLOWED_IMPORTS.iter().copied().collect();
    let mut wrong = vec![];
    for (path, text) in sources("src") {
        let Some(module) = module_of(&path) else { continue };
        let Some(allowed) = arrows.get(module.as_str()) else {
            panic!("{}: the module `{module}` is not in the list", path.display());
        };
        // A group of imports may span lines, so the lines are joined.
        let code: Vec<_> = code_lines(&text).map(|(_, line)| line).collect();
        for named in named_modules(&code.join("\n")) {
            if named != module && arrows.contains_key(named) && !allowed.contains(&named) {
                wrong.push(format!("{}: `{module}` uses `{named}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn readme_names_a_licence_of_each_dependency() {
    let readme = fs::read_to_string("README.md").unwrap();
    let (_, named) = readme.split_once("\n## Licence\n").expect("a section about the licence");
    let named: Vec<_> = named.split(|c: char| c.is_whitespace() || ",;:()".contains(c)).collect();
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal,build", "--prefix", "none"])
        .args(["--format", "{l}|{p}"])
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.lines().count() > 100, "not all dependencies are listed: {tree}");
    // An empty line is between the trees of the two crates.
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let (licence, package) = line.split_once('|').expect("two parts");
        // SPDX expressions, and the older `/` for OR; only the parts of an AND are in brackets.
        let licence = licence.replace('/', " OR ").replace(" WITH LLVM-exception", "");
        let is_named = |one: &str| named.contains(&one.trim_end_matches('.'));
        let is_covered = licence
            .split(" AND ")
            .all(|part| part.trim_matches(['(', ')']).split(" OR ").any(is_named));
        assert!(
            is_covered,
            "README's section about licences does not name {licence:?} ({package})"
        );
    }
}

#[test]
fn pure_code_uses_no_clock_thread_socket_or_file() {
    let mut wrong = vec![];
    for (path, text) in sources("src") {
        let inside = inside_crate(&path);
        if !PURE_PATHS
            .iter()
            .any(|pure| inside.starts_with(pure) || inside == Path::new(&format!("{pure}.rs")))
        {
            continue;
        }
        let code: Vec<_> = code_lines(&text).map(|(_, line)| line).collect();
        wrong.extend(
            impure_names(&code.join("\n")).map(|name| format!("{}: {name}", path.display())),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Media and connections tell the time by tokio's clock, which a test can pause.
#[test]
fn media_and_connections_have_one_clock() {
    let mut wrong = vec![];
    for (path, text) in sources("src") {
        let is_on_the_clock =
            module_of(&path).is_some_and(|module| ONE_CLOCK.contains(&module.as_str()));
        let code: Vec<_> = code_lines(&text).map(|(_, line)| line).collect();
        let is_exempt = OTHER_CLOCKS.iter().any(|other| path.ends_with(other));
        if is_on_the_clock && !is_exempt && has_other_clock(&code.join("\n")) {
            wrong.push(path.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "not tokio's clock: {}", wrong.join(", "));
}

/// Whether a text reads another clock than tokio's.
fn has_other_clock(code: &str) -> bool {
    let reads_system_clock = ["SystemTime::now", "std::time::Instant::now"];
    reads_system_clock.iter().any(|read| code.contains(read))
        || code.contains("Instant::now") && !code.contains("tokio")
}

/// Returns the impure names in a text, also those in groups: `std::{fs, thread}`.
fn impure_names(code: &str) -> impl Iterator<Item = &str> {
    IMPURE_NAMES.iter().copied().filter(move |impure| {
        let grouped = impure.split_once("::").is_some_and(|(root, name)| {
            let group = format!("{root}::{{");
            code.match_indices(&group)
                .any(|(at, _)| group_members(&code[at + group.len()..]).contains(&name))
        });
        grouped || code.contains(impure)
    })
}

#[test]
fn only_transport_uses_the_webrtc_crates() {
    let mut wrong = vec![];
    for (path, text) in sources("src") {
        if module_of(&path).is_some_and(|module| module == "transport") {
            continue;
        }
        for (number, line) in code_lines(&text) {
            if line.contains("webrtc::") || line.contains(" rtc::") || line.contains("(rtc::") {
                wrong.push(format!("{}:{number}: {line}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_the_limit() {
    let long: Vec<_> = sources("src")
        .into_iter()
        .chain(sources("tests"))
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "over {MAX_LINES} lines: {}", long.join(", "));
}

#[test]
fn the_scanner_finds_planted_names() {
    let found: Vec<_> =
        named_modules("use crate::{\n    engine::{Engine, run},\n    model::Size,\n};").collect();
    assert_eq!(found, ["engine", "model"]);
    assert_eq!(named_modules("    crate::ui::App::new()").collect::<Vec<_>>(), ["ui"]);
    let text =
        "a\n#[cfg(test)]\nmod tests;\nb\n/// crate::engine\n#[cfg(test)]\nmod tests {\nc\n}\nd\n";
    assert_eq!(code_lines(text).collect::<Vec<_>>(), [(1, "a"), (4, "b"), (10, "d")]);
    let grouped = "use std::{\n    collections::BTreeMap,\n    fs::{self, File},\n};";
    assert_eq!(impure_names(grouped).collect::<Vec<_>>(), ["std::fs"]);
    assert_eq!(impure_names("crate::media::{Slot, now}").collect::<Vec<_>>(), ["media::now"]);
    assert!(has_other_clock("use std::time::Instant;\nlet start = Instant::now();"));
    assert!(!has_other_clock("use tokio::time::Instant;\nlet start = Instant::now();"));
}

/// Returns every Rust file below `folder`, with its text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = vec![];
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the crate").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is UTF-8");
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no source below {folder}");
    found
}

/// Returns the path of a file inside its crate.
fn inside_crate(path: &Path) -> &Path {
    ["src/base", "src"].iter().find_map(|root| path.strip_prefix(root).ok()).unwrap_or(path)
}

/// Returns the top module of a file; `None` for `main.rs` and `lib.rs`.
fn module_of(path: &Path) -> Option<String> {
    let top = inside_crate(path).components().next()?.as_os_str().to_str()?;
    let module = top.trim_end_matches(".rs");
    (!matches!(module, "main" | "lib")).then(|| module.to_owned())
}

/// Returns the numbered lines of a file without comments and unit tests. The item after
/// `#[cfg(test)]` is one line (`mod tests;`), or a block that ends with a `}` at the start of a
/// line.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line)).peekable();
    let mut code = vec![];
    while let Some((number, line)) = lines.next() {
        if line.starts_with("#[cfg(test)]") {
            match lines.next() {
                Some((_, next)) if next.trim_end().ends_with('{') => {
                    lines.by_ref().find(|(_, line)| line.starts_with('}'));
                    continue;
                }
                Some(_) | None => continue,
            }
        }
        if !line.trim_start().starts_with("//") {
            code.push((number, line));
        }
    }
    code.into_iter()
}

/// Returns the modules of this crate that a text names: `crate::x`, `crate::{x, y::z}`,
/// `quintet::x`.
fn named_modules(code: &str) -> impl Iterator<Item = &str> {
    ["crate::", "quintet::"].into_iter().flat_map(move |root| {
        code.match_indices(root).flat_map(move |(at, _)| {
            let path = &code[at + root.len()..];
            match path.strip_prefix('{') {
                Some(group) => group_members(group),
                None => vec![first_identifier(path)],
            }
        })
    })
}

/// Returns the first identifier of each member of a `{…}` group, without nested groups.
fn group_members(group: &str) -> Vec<&str> {
    let (mut names, mut depth, mut at_start) = (vec![], 0, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if at_start && depth == 0 && !c.is_whitespace() => {
                names.push(first_identifier(&group[at..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}

fn first_identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}
