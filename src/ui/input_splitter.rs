//! Splits input at keys that move the focus, so that typed text reaches the right text box even if
//! a frame takes long.

use eframe::egui::{Context, Event, Key, RawInput};

/// Input events that wait for the next frame.
///
/// egui moves the focus between frames. In a single frame, text typed after Tab would go into the
/// previous box, and text typed before Escape into none.
#[derive(Debug, Default)]
pub(crate) struct InputSplitter {
    deferred: Vec<Event>,
}

impl InputSplitter {
    /// Splits the input so that each key that moves the focus has a frame of its own.
    pub(crate) fn split(&mut self, ctx: &Context, input: &mut RawInput) {
        self.deferred.append(&mut input.events);
        let end =
            self.deferred.iter().position(moves_focus).map_or(self.deferred.len(), |at| at.max(1));
        let remaining = self.deferred.split_off(end);
        if !remaining.is_empty() {
            ctx.request_repaint();
        }
        input.events = std::mem::replace(&mut self.deferred, remaining);
    }
}

fn moves_focus(event: &Event) -> bool {
    matches!(event, Event::Key { key: Key::Tab | Key::Escape, pressed: true, .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use eframe::egui::{Id, Modifiers, TextEdit, Ui};

    fn key(key: Key) -> Event {
        let modifiers = Modifiers::NONE;
        Event::Key { key, physical_key: None, pressed: true, repeat: false, modifiers }
    }

    fn text(text: &str) -> Event {
        Event::Text(text.to_owned())
    }

    #[test]
    fn text_that_arrives_in_one_frame_reaches_the_right_boxes() {
        let (ctx, mut typing) = (Context::default(), InputSplitter::default());
        let mut boxes = [String::new(), String::new()];
        let mut frame = |events: Vec<Event>| {
            let mut input = RawInput { events, ..RawInput::default() };
            typing.split(&ctx, &mut input);
            let count = input.events.len();
            let draw = |ui: &mut Ui| {
                for (index, text) in boxes.iter_mut().enumerate() {
                    ui.add(TextEdit::singleline(text).id(Id::unique(index)));
                }
            };
            ctx.run_ui(input, draw).textures_delta.clear();
            count
        };
        frame(vec![]);
        ctx.memory_mut(|memory| memory.request_focus(Id::unique(0_usize)));
        frame(vec![]);
        let events = [text("Grac"), text("e"), key(Key::Tab), text("Hopper"), key(Key::Escape)];
        assert_eq!(frame(events.to_vec()), 2, "the text before Tab");
        assert_eq!(frame(vec![text("!")]), 1, "Tab");
        for count in [1, 1, 1, 0] {
            assert_eq!(
                frame(vec![]),
                count,
                "the text of the second box, Escape, the text after it"
            );
        }
        assert_eq!(boxes, ["Grace", "Hopper"], "the text after Escape goes into no box");
    }
}
