//! The options of how much data the sessions use.

use crate::model::DataUse;

/// How much data the sessions use.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(super) struct DataUseArgs {
    /// Save data: receive and send video in the smallest of its sizes only.
    #[arg(long)]
    save_data: bool,
    /// Receive and send no video.
    #[arg(long, conflicts_with = "save_data")]
    audio_only: bool,
}

impl DataUseArgs {
    /// Returns the choice.
    pub(super) const fn choice(self) -> DataUse {
        match (self.audio_only, self.save_data) {
            (true, _) => DataUse::AudioOnly,
            (false, true) => DataUse::Saving,
            (false, false) => DataUse::Full,
        }
    }
}
