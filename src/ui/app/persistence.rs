//! State that outlives the window: the user's name, and the sessions to resume in the next window.

use super::App;
use crate::{
    model::{AudioContent, Command, VoiceProcessing},
    ui::saved_sessions::{ResumableSessions, SessionSaver},
};

impl App {
    /// Saves the open sessions from now on, and offers to resume those of an earlier window.
    pub(crate) fn set_session_saver(
        &mut self,
        keeper: SessionSaver,
        resumable: Option<ResumableSessions>,
    ) {
        (self.session_saver, self.resumable) = (Some(keeper), resumable);
    }

    /// Resumes the sessions of an earlier window if the user accepts. Otherwise it discards the
    /// offer.
    pub(super) fn resume_sessions(&mut self, accepted: bool) {
        match self.resumable.take() {
            Some(sessions) if accepted => self.unsent.extend(sessions.resume()),
            Some(sessions) => sessions.discard(),
            None => {}
        }
    }

    /// Changes what is done to the sound of the microphone. What an option of the command line chose
    /// for this run is not saved.
    pub(super) fn set_voice_processing(&mut self, chosen: VoiceProcessing) {
        let before = self.snapshot.voice_processing;
        let settings = &mut self.settings;
        for (setting, before, chosen) in [
            (&mut settings.echo, before.echo_cancellation, chosen.echo_cancellation),
            (&mut settings.noise, before.noise_suppression, chosen.noise_suppression),
            (&mut settings.gain, before.auto_gain_control, chosen.auto_gain_control),
        ] {
            if chosen != before {
                *setting = chosen.is_on();
            }
        }
        if chosen.content != before.content {
            settings.music = chosen.content == AudioContent::Music;
        }
        self.save_settings();
        self.unsent.push_back(Command::SetVoiceProcessing(chosen));
    }

    /// Changes the user's name in every session.
    pub(super) fn set_name(&mut self, name: String) {
        if self.settings.name.trim() != name.trim() {
            let name = name.trim().to_owned();
            self.unsent.push_back(Command::Rename { name });
        }
        self.settings.name = name;
    }
}
