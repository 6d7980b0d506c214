//! The sources of links to join. Every user of the machine can read a command line, and a link is
//! the right to join: so a link may also come from a file or from standard input.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::model::{JoinTarget, parse_target};

/// The most bytes of a text that are searched for a link: enough for a mail with quoted replies.
const MAX_TEXT: u64 = 256 * 1024;

/// A session to join, or where its link is read from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkSource {
    /// A link or an id on the command line.
    Session(JoinTarget),
    /// The first link or id on standard input.
    StandardInput,
    /// The first link or id in a file.
    File(PathBuf),
}

impl LinkSource {
    /// Parses an argument: a link, an id, `-`, or `@FILE`.
    ///
    /// # Errors
    /// Fails if it is none of these.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        match (text, text.strip_prefix('@')) {
            ("-", _) => Ok(Self::StandardInput),
            (_, Some("")) => bail!("a file name is missing after @"),
            (_, Some(file)) => Ok(Self::File(file.into())),
            (_, None) => Ok(Self::Session(parse_join_target(text)?)),
        }
    }

    /// Returns the session; `None` if its link is not read yet.
    pub(super) const fn session(&self) -> Option<&JoinTarget> {
        match self {
            Self::Session(target) => Some(target),
            Self::StandardInput | Self::File(_) => None,
        }
    }

    /// Reads the links from files and standard input. Standard input cannot be used if it
    /// `is_taken` by chats or commands.
    ///
    /// # Errors
    /// Fails if one cannot be read.
    pub(super) fn read_all(
        sessions: &mut Vec<Self>,
        files: &mut Vec<PathBuf>,
        is_taken: bool,
    ) -> anyhow::Result<()> {
        if is_taken && sessions.contains(&Self::StandardInput) {
            bail!("--say and --commands use standard input themselves; give the link by @FILE");
        }
        let files = std::mem::take(files).into_iter().map(Self::File);
        let all = std::mem::take(sessions).into_iter().chain(files);
        *sessions = all.map(Self::read).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Reads the link from its source. Blocks until the file or standard input has ended.
    ///
    /// # Errors
    /// Fails if the source cannot be read or contains no link.
    fn read(self) -> anyhow::Result<Self> {
        match self {
            Self::Session(target) => Ok(Self::Session(target)),
            Self::StandardInput => read_from(io::stdin()).context("standard input"),
            Self::File(path) => read_file(&path).with_context(|| format!("the file {path:?}")),
        }
    }
}

fn read_file(path: &Path) -> anyhow::Result<LinkSource> {
    read_from(File::open(path).context("it cannot be read; check its name")?)
}

fn read_from(input: impl Read) -> anyhow::Result<LinkSource> {
    let mut text = vec![];
    input.take(MAX_TEXT).read_to_end(&mut text).context("it cannot be read")?;
    Ok(LinkSource::Session(parse_join_target(&String::from_utf8_lossy(&text))?))
}

fn parse_join_target(text: &str) -> anyhow::Result<JoinTarget> {
    let (hub, session) = parse_target(text)?;
    Ok(JoinTarget { session, hub })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_from_the_command_line_a_file_or_standard_input() {
        let link = "http://192.168.1.5:7340/s/town-hall";
        let expected = LinkSource::parse(link).unwrap();
        assert_eq!(expected.session().unwrap().session.as_str(), "town-hall");
        assert_eq!(LinkSource::parse("-").unwrap(), LinkSource::StandardInput);
        assert_eq!(LinkSource::parse("@a b").unwrap(), LinkSource::File("a b".into()));
        assert!(LinkSource::parse("@").is_err() && LinkSource::parse("http://x/y").is_err());
        let mail = format!("Hello,\r\njoin us: <{link}>.\r\n");
        assert_eq!(read_from(mail.as_bytes()).unwrap(), expected);
        let path = std::env::temp_dir().join(format!("quintet-link-{}", std::process::id()));
        std::fs::write(&path, mail).unwrap();
        assert_eq!(LinkSource::File(path.clone()).read().unwrap(), expected);
        std::fs::write(&path, "see you at nine").unwrap();
        let wrong = format!("{:#}", LinkSource::File(path.clone()).read().unwrap_err());
        assert!(wrong.contains("quintet-link-") && wrong.contains("not a link"), "{wrong}");
        std::fs::remove_file(&path).unwrap();
        let missing = format!("{:#}", LinkSource::File(path).read().unwrap_err());
        assert!(missing.contains("cannot be read; check its name"), "{missing}");
    }
}
