//! What keeps the video of this program smaller than others want it.

use crate::{conference::effects::EffectQueue, model::Event};

/// What keeps the video of this program smaller than others want it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SendingLimits {
    is_encoder_late: bool,
    is_upload_full: bool,
}

impl SendingLimits {
    pub(super) const fn is_encoder_late(self) -> bool {
        self.is_encoder_late
    }

    pub(super) const fn is_upload_full(self) -> bool {
        self.is_upload_full
    }

    /// Follows the encoders. That they are in time again is no event: the snapshot shows it.
    pub(super) fn set_encoder_late(&mut self, is_late: bool, effects: &mut EffectQueue) {
        if is_late && !self.is_encoder_late {
            effects.announce(Event::EncoderLate);
        }
        self.is_encoder_late = is_late;
    }

    /// Follows the upload, which may be full for long: a script needs to know when it is not any
    /// more.
    pub(super) fn set_upload_full(&mut self, is_full: bool, effects: &mut EffectQueue) {
        if is_full != self.is_upload_full {
            effects.announce(if is_full { Event::UploadFull } else { Event::UploadOk });
        }
        self.is_upload_full = is_full;
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        conference::{Input, tests::fixture::*},
        model::Event,
    };

    #[test]
    fn a_full_upload_is_announced_and_so_is_its_end() {
        let mut fixture = Fixture::opened(MESH);
        for (is_full, announced) in [
            (true, vec![Event::UploadFull]),
            (true, vec![]),
            (false, vec![Event::UploadOk]),
            (false, vec![]),
        ] {
            fixture.handle(Input::UploadFull(is_full));
            assert_eq!(fixture.events().into_iter().cloned().collect::<Vec<_>>(), announced);
            assert_eq!(fixture.core.snapshot().is_upload_full, is_full);
        }
    }
}
