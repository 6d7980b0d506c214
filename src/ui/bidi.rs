//! Right-to-left text: the Unicode bidirectional algorithm (UAX #9) over what egui lays out.
//!
//! egui shapes each word in its own direction but places words from left to right. This module lays
//! out and wraps a text in logical order, and then moves the words of each row to their visual
//! positions. The text itself stays unchanged for copying and for screen readers.

use std::{borrow::Cow, ops::Range, sync::Arc};

use eframe::egui::{
    Color32, FontId, Galley, Label, Painter, Response, RichText, TextBuffer, TextEdit, TextStyle,
    Ui, WidgetText,
    epaint::text::{ByteIndex, Glyph, LayoutJob, LayoutSection, Row, TextWrapping},
    vec2,
};
use unicode_bidi::{BidiClass, BidiInfo, Level, bidi_class};

/// Characters that are mirrored in right-to-left text (Unicode Bidi_Mirrored), as far as egui's
/// default fonts have them. The shaper mirrors those of other fonts.
const MIRRORED: &str = "()[]{}<>«»‹›≤≥";

/// First strong isolate (FSI): isolates the text that follows from the sentence around it.
const FIRST_STRONG_ISOLATE: char = '\u{2068}';

/// Pop directional isolate (PDI): ends an isolate.
const POP_DIRECTIONAL_ISOLATE: char = '\u{2069}';

/// Whether a text contains anything that may be read from right to left.
pub(crate) fn is_needed(text: &str) -> bool {
    use BidiClass::{AL, AN, FSI, LRI, LRO, PDF, PDI, R, RLE, RLI, RLO};
    let is_bidi =
        |c| matches!(bidi_class(c), R | AL | AN | RLE | RLO | RLI | LRO | LRI | FSI | PDF | PDI);
    !text.is_ascii() && text.chars().any(is_bidi)
}

/// A participant's text as part of a sentence. The isolate keeps it from changing the sentence's
/// direction.
pub(crate) fn isolated(text: &str) -> Cow<'_, str> {
    if is_needed(text) {
        format!("{FIRST_STRONG_ISOLATE}{text}{POP_DIRECTIONAL_ISOLATE}").into()
    } else {
        text.into()
    }
}

/// A label with text from participants, wrapped to the available width.
pub(crate) fn wrapped(ui: &Ui, text: &str, (font, colour): (FontId, Color32)) -> Label {
    let job = LayoutJob::simple(text.to_owned(), font.clone(), colour, ui.available_width());
    label(ui, job, (font, colour)).wrap()
}

/// The same in one line, truncated with an ellipsis if it is too long.
pub(crate) fn truncated(ui: &Ui, text: &str, (font, colour): (FontId, Color32)) -> Label {
    let mut job = LayoutJob::simple_singleline(text.to_owned(), font.clone(), colour);
    job.wrap = TextWrapping::truncate_at_width(ui.available_width());
    label(ui, job, (font, colour)).truncate()
}

fn label(ui: &Ui, job: LayoutJob, (font, colour): (FontId, Color32)) -> Label {
    if is_needed(&job.text) {
        Label::new(WidgetText::Galley(layout(ui.painter(), job)))
    } else {
        Label::new(RichText::new(job.text).font(font).color(colour))
    }
}

/// Shows a text when the pointer hovers over the widget.
pub(crate) fn hover_text(response: Response, text: &str) -> Response {
    if !is_needed(text) {
        return response.on_hover_text(text);
    }
    response.on_hover_ui(|ui| {
        let style = (TextStyle::Body.resolve(ui.style()), ui.visuals().text_color());
        ui.add(wrapped(ui, text, style));
    })
}

/// Lays out the text of a multi-line text box.
pub(crate) fn layout_edited(ui: &Ui, text: &dyn TextBuffer, width: f32) -> Arc<Galley> {
    layout_edited_text(ui, text.as_str(), Some(width))
}

/// A single-line text box for text that may be right-to-left, such as a name.
pub(crate) fn single_line_edit<R>(text: &mut String, add: impl FnOnce(TextEdit<'_>) -> R) -> R {
    let mut layouter =
        |ui: &Ui, text: &dyn TextBuffer, _| layout_edited_text(ui, text.as_str(), None);
    let has_rtl = is_needed(text);
    let edit = TextEdit::singleline(text);
    add(if has_rtl { edit.layouter(&mut layouter) } else { edit })
}

fn layout_edited_text(ui: &Ui, text: &str, width: Option<f32>) -> Arc<Galley> {
    let font = TextStyle::Body.resolve(ui.style());
    let colour =
        ui.visuals().override_text_color.unwrap_or(ui.visuals().widgets.inactive.text_color());
    let mut job = match width {
        Some(width) => LayoutJob::simple(text.to_owned(), font, colour, width),
        None => LayoutJob::simple_singleline(text.to_owned(), font, colour),
    };
    job.keep_trailing_whitespace = true;
    let row = ui.fonts_mut(|fonts| fonts.row_height(&job.sections[0].format.font_id));
    job.sections[0].format.line_height = Some(row + ui.spacing().extra_text_line_spacing);
    layout(ui.painter(), job)
}

/// Lays out a text, with each row in visual order.
pub(crate) fn layout(painter: &Painter, job: LayoutJob) -> Arc<Galley> {
    if !is_needed(&job.text) {
        return painter.layout_job(job);
    }
    if job.wrap.max_rows == 1 {
        layout_truncated(painter, job)
    } else {
        layout_reordered(painter, job)
    }
}

/// Lays out as much of a text as fits into one row. egui would cut a word at its first
/// right-to-left letter.
fn layout_truncated(painter: &Painter, job: LayoutJob) -> Arc<Galley> {
    let max_width = job.wrap.max_width;
    let row = |text: String| {
        let format = job.sections[0].format.clone();
        layout_reordered(painter, LayoutJob::single_section(text, format))
    };
    let whole = row(job.text.clone());
    if whole.size().x <= max_width {
        return whole;
    }
    let cut_positions = job.text.char_indices().rev().map(|(at, _)| at);
    let candidates = cut_positions.map(|at| row(format!("{}…", job.text[..at].trim_end())));
    let fitting = candidates.into_iter().find(|galley| galley.size().x <= max_width);
    let mut galley = Galley::clone(&fitting.unwrap_or(whole));
    (galley.job, galley.elided) = (Arc::new(job), true);
    Arc::new(galley)
}

fn layout_reordered(painter: &Painter, job: LayoutJob) -> Arc<Galley> {
    let pieces = pieces(&job.text);
    let job = with_section_per_piece(job, &pieces);
    let counts: Vec<_> = job.sections.iter().map(|one| glyph_count(painter, &job, one)).collect();
    let mut galley = Galley::clone(&painter.layout_job(job));
    let mut remaining =
        RemainingPieces { pieces: &pieces, glyph_counts: &counts, index: 0, used_glyphs: 0 };
    let width = galley.rect.width();
    for placed in &mut galley.rows {
        let groups = remaining.groups(&placed.row);
        if groups.first().is_some_and(|group| group.piece.paragraph.is_rtl()) {
            placed.pos.x += (width - placed.row.size.x).max(0.0);
        }
        reorder_row(Arc::make_mut(&mut placed.row), &groups);
    }
    Arc::new(galley)
}

/// A part of a text that moves as a whole.
#[derive(Clone, Debug, PartialEq)]
struct Piece {
    /// Its bytes in the text.
    range: Range<usize>,
    /// Its number of characters.
    chars: usize,
    /// Its embedding level: odd for right-to-left text.
    level: Level,
    /// The embedding level of its paragraph.
    paragraph: Level,
    kind: PieceKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PieceKind {
    /// Right-to-left letters. The shaper has put them in visual order.
    Word,
    /// A space.
    Space,
    /// The end of a paragraph.
    Newline,
    /// Anything else: a left-to-right run, or a single character.
    Other,
}

/// Splits a text where its order may change. In right-to-left text, each character that is not a
/// letter is a piece of its own: the shaper sees it in another font and does not reorder it.
fn pieces(text: &str) -> Vec<Piece> {
    let info = BidiInfo::new(text, None);
    let mut pieces: Vec<Piece> = vec![];
    for paragraph in &info.paragraphs {
        let start = paragraph.range.start;
        for (at, c) in text[paragraph.range.clone()].char_indices() {
            let range = start + at..start + at + c.len_utf8();
            let level = info.levels[range.start];
            let kind = piece_kind(c, level);
            let one = Piece { range, chars: 1, level, paragraph: paragraph.level, kind };
            match pieces.last_mut().filter(|last| last.continues_with(&one)) {
                Some(last) => {
                    last.range.end = one.range.end;
                    last.chars += 1;
                }
                None => pieces.push(one),
            }
        }
    }
    pieces
}

fn piece_kind(c: char, level: Level) -> PieceKind {
    use BidiClass::{AL, BN, NSM, R};
    match (c, bidi_class(c)) {
        ('\n', _) => PieceKind::Newline,
        (_, R | AL | NSM | BN) if level.is_rtl() => PieceKind::Word,
        (c, _) if c.is_whitespace() => PieceKind::Space,
        _ => PieceKind::Other,
    }
}

impl Piece {
    fn continues_with(&self, next: &Self) -> bool {
        let is_same = self.level == next.level && self.paragraph == next.paragraph;
        match (self.kind, next.kind) {
            (PieceKind::Word, PieceKind::Word) => is_same,
            (PieceKind::Other, PieceKind::Other) => is_same && self.level.is_ltr(),
            // Trailing spaces of a row take the direction of the paragraph, which may differ.
            (PieceKind::Other | PieceKind::Space, PieceKind::Other | PieceKind::Space) => {
                is_same && self.level == self.paragraph && self.level.is_ltr()
            }
            _ => false,
        }
    }
}

/// The job with one section per piece. The text must have a single format.
fn with_section_per_piece(job: LayoutJob, pieces: &[Piece]) -> LayoutJob {
    let section = |piece: &Piece| LayoutSection {
        leading_space: if piece.range.start == 0 { job.sections[0].leading_space } else { 0.0 },
        byte_range: ByteIndex(piece.range.start)..ByteIndex(piece.range.end),
        format: job.format_at_byte(ByteIndex(piece.range.start)).clone(),
    };
    let sections = pieces.iter().map(section).collect();
    LayoutJob { sections, ..job }
}

/// How many glyphs a section is shaped into. A word may have more letters than glyphs.
fn glyph_count(painter: &Painter, job: &LayoutJob, section: &LayoutSection) -> usize {
    let text = &job.text[section.byte_range.start.0..section.byte_range.end.0];
    let text = text.replace('\n', "");
    let alone = LayoutJob::single_section(text, section.format.clone());
    painter.layout_job(alone).rows.iter().map(|row| row.glyphs.len()).sum()
}

/// The pieces that no row contains yet.
struct RemainingPieces<'a> {
    pieces: &'a [Piece],
    glyph_counts: &'a [usize],
    index: usize,
    /// How many glyphs of the current piece are in earlier rows.
    used_glyphs: usize,
}

/// The glyphs of a piece in one row.
struct Group<'a> {
    piece: &'a Piece,
    level: Level,
    glyphs: Range<usize>,
    /// Whether the row has the whole piece.
    is_whole: bool,
}

impl<'a> RemainingPieces<'a> {
    /// The glyph groups of a row, in logical order.
    fn groups(&mut self, row: &Row) -> Vec<Group<'a>> {
        let (mut groups, mut from, end) = (vec![], 0, row.glyphs.len());
        while from < end && self.index < self.pieces.len() {
            let (piece, count) = (&self.pieces[self.index], self.glyph_counts[self.index]);
            let to = end.min(from + count - self.used_glyphs);
            let is_whole = to - from == count;
            if to > from {
                groups.push(Group { piece, level: piece.level, glyphs: from..to, is_whole });
            }
            self.used_glyphs += to - from;
            if self.used_glyphs == count {
                (self.index, self.used_glyphs) = (self.index + 1, 0);
            }
            from = to;
        }
        // UAX #9, rule L1.
        for group in
            groups.iter_mut().rev().take_while(|group| group.piece.kind == PieceKind::Space)
        {
            group.level = group.piece.paragraph;
        }
        groups
    }
}

/// Moves the groups of a row to their visual positions (UAX #9, rule L2).
fn reorder_row(row: &mut Row, groups: &[Group<'_>]) {
    let Some(first) = row.glyphs.first() else { return };
    let mut x = first.pos.x;
    let start = |group: &Group<'_>| row.glyphs[group.glyphs.start].pos.x;
    let mut edges: Vec<_> = groups.iter().map(start).collect();
    edges.push(row.size.x);
    let levels: Vec<_> = groups.iter().map(|group| group.level).collect();
    for index in BidiInfo::reorder_visual(&levels) {
        let (group, from, to) = (&groups[index], edges[index], edges[index + 1]);
        for at in group.glyphs.clone() {
            shift_glyph(row, at, x - from);
        }
        let is_mirrored = group.level.is_rtl() && group.piece.kind == PieceKind::Other;
        if is_mirrored && MIRRORED.contains(row.glyphs[group.glyphs.start].chr) {
            mirror_glyph(row, group.glyphs.start);
        }
        x += to - from;
    }
    row.visuals.mesh_bounds = row.visuals.mesh.calc_bounds();
    let glyphs = std::mem::take(&mut row.glyphs);
    row.glyphs = groups
        .iter()
        .flat_map(|group| in_logical_order(&glyphs[group.glyphs.clone()], group))
        .collect();
}

/// The vertices of a glyph in the row's mesh. Empty for an invisible glyph.
fn corners(glyph: &Glyph) -> Range<usize> {
    let first = glyph.first_vertex as usize;
    first..if glyph.uv_rect.is_nothing() { first } else { first + 4 }
}

fn shift_glyph(row: &mut Row, at: usize, by: f32) {
    row.glyphs[at].pos.x += by;
    let corners = corners(&row.glyphs[at]);
    for vertex in &mut row.visuals.mesh.vertices[corners] {
        vertex.pos += vec2(by, 0.0);
    }
}

/// Mirrors a glyph within its width.
fn mirror_glyph(row: &mut Row, at: usize) {
    let glyph = &row.glyphs[at];
    let sum = 2.0 * glyph.pos.x + glyph.advance_width;
    let corners = corners(glyph);
    for vertex in &mut row.visuals.mesh.vertices[corners] {
        vertex.pos.x = sum - vertex.pos.x;
    }
}

/// The glyphs of a group in logical order, one per character, as text cursors expect. The shaper
/// returns the glyphs of a word in visual order, and egui adds invisible ones.
fn in_logical_order(glyphs: &[Glyph], group: &Group<'_>) -> Vec<Glyph> {
    if group.piece.kind != PieceKind::Word || !group.is_whole {
        return glyphs.to_vec();
    }
    let is_seen = |glyph: &&Glyph| glyph.advance_width > 0.0 || !glyph.uv_rect.is_nothing();
    let mut seen: Vec<_> = glyphs.iter().filter(is_seen).cloned().collect();
    seen.reverse();
    if let Some(last) = seen.last().cloned() {
        let mut hidden = last;
        (hidden.advance_width, hidden.uv_rect) = (0.0, Default::default());
        seen.resize(group.piece.chars, hidden);
    }
    seen
}

#[cfg(test)]
mod tests {
    use eframe::egui::{Context, RawInput};

    use super::*;

    const COLOUR: Color32 = Color32::WHITE;

    /// Lays out a text in a width and calls `look` with the result.
    fn laid_out(text: &str, width: f32, look: impl FnOnce(&Galley)) {
        let ctx = Context::default();
        let mut look = Some(look);
        let mut output = ctx.run_ui(RawInput::default(), |ui| {
            let job = LayoutJob::simple(text.to_owned(), FontId::proportional(14.0), COLOUR, width);
            let galley = layout(ui.painter(), job);
            if let Some(look) = look.take() {
                look(&galley);
            }
        });
        // The test draws nothing, so the textures are not needed.
        output.textures_delta.clear();
    }

    /// The characters of each row in visual order.
    fn visual_rows(text: &str, width: f32) -> Vec<String> {
        let mut rows = vec![];
        laid_out(text, width, |galley| {
            assert_eq!(galley.text(), text, "copying and screen readers get the original text");
            let count: usize =
                galley.rows.iter().map(|row| row.char_count_including_newline().0).sum();
            assert_eq!(count, text.chars().count(), "text cursors need one glyph per character");
            for row in &galley.rows {
                let mut glyphs: Vec<_> = row.glyphs.iter().collect();
                glyphs.sort_by(|one, other| one.pos.x.total_cmp(&other.pos.x));
                rows.push(glyphs.into_iter().map(|glyph| glyph.chr).collect());
            }
        });
        rows
    }

    #[test]
    fn words_are_placed_in_visual_order() {
        for (text, shown) in [
            ("plain text", "plain text"),
            // Hebrew: "shalom olam" and "Ada shalom olam hello".
            ("שלום עולם", "םלוע םולש"),
            ("Ada שלום עולם hello", "Ada םלוע םולש hello"),
            ("שלום Ada Lovelace עולם", "םלוע Ada Lovelace םולש"),
            // Numbers run from left to right. The text after them is on their left.
            ("יש 123 אנשים.", ".םישנא 123 שי"),
            ("(שלום) עולם", "םלוע (םולש("),
        ] {
            let rows = visual_rows(text, f32::INFINITY);
            // Brackets are mirrored in the mesh only. Their characters stay.
            let expected: String = shown.chars().collect();
            if text.starts_with('(') {
                assert_eq!(rows, ["םלוע )םולש("]);
            } else {
                assert_eq!(rows, [expected]);
            }
        }
    }

    #[test]
    fn a_row_breaks_in_logical_order() {
        let text = "אחת שתיים שלוש ארבע חמש שש שבע";
        let rows = visual_rows(text, 90.0);
        assert!(rows.len() > 1, "{rows:?}");
        let read = |row: &String| row.chars().rev().collect::<String>();
        let again: Vec<_> = rows.iter().map(read).collect();
        assert_eq!(again.concat().split_whitespace().collect::<Vec<_>>().join(" "), text);
    }

    #[test]
    fn each_paragraph_has_the_direction_of_its_first_letter() {
        let rows = visual_rows("hello שלום עולם\nשלום עולם hello", f32::INFINITY);
        assert_eq!(rows, ["hello םלוע םולש", "hello םלוע םולש"]);
    }

    #[test]
    fn a_name_does_not_change_the_direction_of_its_sentence() {
        let name = isolated("שלום עולם");
        let rows = visual_rows(&format!("{name} 3 people"), f32::INFINITY);
        let visible =
            |row: &String| row.replace(['\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}'], "");
        let rows: Vec<String> = rows.iter().map(visible).collect();
        assert_eq!(rows, ["םלוע םולש 3 people"]);
        assert_eq!(isolated("Ada"), "Ada");
        // A name that opens an override and does not close it.
        let name = isolated("\u{202E}Ada");
        let rows = visual_rows(&format!("{name} joined"), f32::INFINITY);
        assert!(rows[0].ends_with(" joined"), "{rows:?}");
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_at_its_logical_end() {
        let ctx = Context::default();
        let mut output = ctx.run_ui(RawInput::default(), |ui| {
            let text = "שלום עולם ארוך מאוד".to_owned();
            let mut job = LayoutJob::simple_singleline(text, FontId::proportional(14.0), COLOUR);
            job.wrap = TextWrapping::truncate_at_width(60.0);
            let whole = job.text.clone();
            let galley = layout(ui.painter(), job);
            assert_eq!(galley.text(), whole, "copying and screen readers get the original text");
            let mut glyphs = galley.rows[0].glyphs.clone();
            glyphs.sort_by(|one, other| one.pos.x.total_cmp(&other.pos.x));
            assert!(galley.elided);
            assert_eq!(
                glyphs.first().map(|glyph| glyph.chr),
                Some('…'),
                "the text ends at the left"
            );
            assert!(glyphs.iter().any(|glyph| glyph.chr == 'ש'), "the beginning is visible");
        });
        output.textures_delta.clear();
    }
}
