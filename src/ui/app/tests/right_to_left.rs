//! Tests of right-to-left text in every place that shows names and messages.

use eframe::egui::{MissingGlyphPolicy, Shape, epaint::TextShape};

use super::*;
use crate::model::ChatText;

/// "Shalom Ada olam". Each of the two letters below occurs in only one of the Hebrew words.
const RTL_TEXT: &str = "שלום Ada עולם";
const IN_FIRST: char = 'ש';
const IN_SECOND: char = 'ע';

fn collect_texts<'a>(shape: &'a Shape, found: &mut Vec<&'a TextShape>) {
    if let Shape::Text(text) = shape {
        found.push(text);
    } else if let Shape::Vec(shapes) = shape {
        shapes.iter().for_each(|shape| collect_texts(shape, found));
    }
}

/// Counts the drawn texts that contain both Hebrew words. Asserts that the first word is right of
/// the second.
fn count_rtl_texts(window: &Harness<'_, Option<App>>) -> usize {
    let mut found = vec![];
    window.output().shapes.iter().for_each(|shape| collect_texts(&shape.shape, &mut found));
    let rows = found.iter().flat_map(|text| &text.galley.rows);
    let at = |row: &eframe::egui::epaint::text::PlacedRow, letter: char| {
        row.glyphs.iter().find(|glyph| glyph.chr == letter).map(|glyph| glyph.pos.x)
    };
    let positions = rows.filter_map(|row| Some((at(row, IN_FIRST)?, at(row, IN_SECOND)?)));
    positions.inspect(|(first, second)| assert!(first > second, "{first} {second}")).count()
}

#[test]
fn names_and_messages_are_drawn_from_right_to_left_everywhere() {
    let mut one = session_status("a", SessionKind::FIVE[0], Role::Opener, 3);
    one.kind.as_mut().unwrap().media = "audio+video+data".parse().unwrap();
    for (index, participant) in one.participants.iter_mut().enumerate() {
        (participant.name, participant.peer) = (RTL_TEXT.to_owned(), Some(PeerId(index as u64)));
    }
    one.participants[2].state = ParticipantState::Gone;
    let mut window = window(LARGE, Snapshot::default());
    // Only the positions of the letters matter, so no Hebrew font is needed.
    window.ctx.set_missing_glyph_policy(MissingGlyphPolicy::Tofu);
    app(&mut window).settings.name = RTL_TEXT.to_owned();
    window.run();
    assert_eq!(count_rtl_texts(&window), 1, "the user's name");
    app(&mut window).snapshot = Arc::new(snapshot_of(vec![one]));
    window.run();
    let names = count_rtl_texts(&window);
    assert!(names >= 3, "two tiles and a disconnected participant: {names}");
    let participant = ParticipantId::from_digest([0; 10]);
    let text = ChatText::new(RTL_TEXT).unwrap();
    let message = Event::MessageReceived {
        session: session_id("a"),
        participant,
        name: RTL_TEXT.to_owned(),
        text,
    };
    app(&mut window).chats.on_event(&message, "14:05");
    window.run();
    window.get_by_label_contains("Chat in").click();
    window.run();
    assert_eq!(count_rtl_texts(&window), names + 2, "the sender and the message");
    window.get_by_label_contains("Message to").type_text(RTL_TEXT);
    window.run();
    assert_eq!(count_rtl_texts(&window), names + 3, "the draft");
}
