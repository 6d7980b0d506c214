//! Values of the options of sessions and sources. Their errors are sentences for the user.

use std::ffi::OsString;

use anyhow::bail;

use crate::{
    capture::SourceSpec,
    model::{MAX_NAME_CHARS, SessionId, SessionKind, clean_name, parse_own_id},
};

pub(super) fn parse_kind(text: &str) -> anyhow::Result<SessionKind> {
    Ok(text.parse()?)
}

pub(super) fn parse_id(text: &str) -> anyhow::Result<SessionId> {
    Ok(parse_own_id(text)?)
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
