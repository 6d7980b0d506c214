//! Text from right to left, wherever the window shows what people wrote.

use eframe::egui::{MissingGlyphPolicy, Shape, epaint::TextShape};

use super::*;
use crate::model::ChatText;

/// "Shalom Ada olam": of its letters only these two are in one of the outer words alone.
const SAID: &str = "שלום Ada עולם";
const IN_FIRST: char = 'ש';
const IN_SECOND: char = 'ע';

fn texts<'a>(shape: &'a Shape, found: &mut Vec<&'a TextShape>) {
    if let Shape::Text(text) = shape {
        found.push(text);
    } else if let Shape::Vec(shapes) = shape {
        shapes.iter().for_each(|shape| texts(shape, found));
    }
}

/// In how many texts that are drawn both words stand, all of them as they are read.
fn right_to_left(window: &Harness<'_, Option<App>>) -> usize {
    let mut found = vec![];
    window.output().shapes.iter().for_each(|shape| texts(&shape.shape, &mut found));
    let rows = found.iter().flat_map(|text| &text.galley.rows);
    let at = |row: &eframe::egui::epaint::text::PlacedRow, letter: char| {
        row.glyphs.iter().find(|glyph| glyph.chr == letter).map(|glyph| glyph.pos.x)
    };
    let places = rows.filter_map(|row| Some((at(row, IN_FIRST)?, at(row, IN_SECOND)?)));
    places.inspect(|(first, second)| assert!(first > second, "{first} {second}")).count()
}

#[test]
fn names_and_messages_are_read_from_right_to_left_wherever_they_stand() {
    let mut one = session("a", SessionKind::FIVE[0], Role::Opener, 3);
    one.kind.as_mut().unwrap().media = "audio+video+data".parse().unwrap();
    for (index, person) in one.participants.iter_mut().enumerate() {
        (person.name, person.peer) = (SAID.to_owned(), Some(PeerId(index as u64)));
    }
    one.participants[2].state = ParticipantState::Gone;
    let mut window = window(LARGE, Snapshot::default());
    // The place of each letter counts, not its shape: no font for them need be here.
    window.ctx.set_missing_glyph_policy(MissingGlyphPolicy::Tofu);
    app(&mut window).settings.name = SAID.to_owned();
    window.run();
    assert_eq!(right_to_left(&window), 1, "one's own name");
    app(&mut window).snapshot = Arc::new(with(vec![one]));
    window.run();
    let people = right_to_left(&window);
    assert!(people >= 3, "two tiles and who is lost: {people}");
    let participant = ParticipantId::from_digest([0; 10]);
    let text = ChatText::new(SAID).unwrap();
    let message = Event::Message { session: id("a"), participant, name: SAID.to_owned(), text };
    app(&mut window).chats.note(&message, "14:05");
    window.run();
    window.get_by_label_contains("Chat in").click();
    window.run();
    assert_eq!(right_to_left(&window), people + 2, "who said it, and what");
    window.get_by_label_contains("Message to").type_text(SAID);
    window.run();
    assert_eq!(right_to_left(&window), people + 3, "what is being written");
}
