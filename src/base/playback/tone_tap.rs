//! Measures tones in received audio, for programs and tests that send test tones. Without a tap
//! nothing is kept or measured.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::{
    audio::{History, tone_hz},
    media::BLOCK_SAMPLES,
};

/// Keeps the last second of one received audio stream while it is held, and finds the strongest
/// tone in it. Clones share the second.
#[derive(Clone, Debug)]
pub struct ToneTap(Arc<Mutex<ToneState>>);

#[derive(Debug)]
enum ToneState {
    Recording(History),
    Stopped(Option<f64>),
}

impl ToneTap {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(ToneState::Recording(History::new()))))
    }

    /// The strongest tone of the last second, in hertz; `None` in silence. Takes some milliseconds
    /// on the calling thread.
    pub fn tone_hz(&self) -> Option<f64> {
        let samples = match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            ToneState::Recording(history) => history.samples(),
            ToneState::Stopped(tone) => return *tone,
        };
        tone_hz(&samples)
    }

    /// Stops recording and frees the memory. The tone of the last second until now stays. Takes as
    /// long as [`Self::tone_hz`].
    pub fn stop(&self) {
        let tone = self.tone_hz();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ToneState::Stopped(tone);
    }

    fn record(&self, block: &[f32; BLOCK_SAMPLES]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let ToneState::Recording(history) = &mut *state {
            history.push(block);
        }
    }

    /// The samples of the last second, oldest first.
    #[cfg(test)]
    pub(super) fn samples(&self) -> Vec<f32> {
        match &*self.0.lock().unwrap() {
            ToneState::Recording(history) => history.samples(),
            ToneState::Stopped(_) => vec![],
        }
    }
}

/// Where the tap of one stream is attached.
#[derive(Debug, Default)]
pub(super) struct ToneTapSlot(Mutex<Weak<Mutex<ToneState>>>);

impl ToneTapSlot {
    /// Returns the tap that is attached, or attaches one.
    pub(super) fn attach(&self) -> ToneTap {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = slot.upgrade() {
            return ToneTap(state);
        }
        let tap = ToneTap::new();
        *slot = Arc::downgrade(&tap.0);
        tap
    }

    /// Passes a block to the tap, if one is attached.
    pub(super) fn record(&self, block: &[f32; BLOCK_SAMPLES]) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(state) = state {
            ToneTap(state).record(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(hz: f64, number: usize) -> [f32; BLOCK_SAMPLES] {
        std::array::from_fn(|n| {
            let at = (number * BLOCK_SAMPLES + n) as f64 / 48_000.0;
            (at * hz * std::f64::consts::TAU).sin() as f32 / 4.0
        })
    }

    #[test]
    fn only_what_passes_while_a_tap_is_held_is_kept() {
        let slot = ToneTapSlot::default();
        (0..100).for_each(|number| slot.record(&block(440.0, number)));
        let tap = slot.attach();
        assert_eq!(tap.tone_hz(), None);
        (0..100).for_each(|number| slot.record(&block(440.0, number)));
        assert!((slot.attach().tone_hz().unwrap() - 440.0).abs() < 1.0);
        tap.stop();
        (0..100).for_each(|number| slot.record(&block(660.0, number)));
        assert!((tap.tone_hz().unwrap() - 440.0).abs() < 1.0, "it was stopped");
        drop(tap);
        assert_eq!(slot.attach().tone_hz(), None, "nothing is kept without a tap");
    }
}
