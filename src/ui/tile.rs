//! A tile: the video of a source, or the initials of its participant with a level ring.

use eframe::egui::{
    self, Align, Align2, Color32, FontId, Frame, Label, Layout, Painter, Pos2, Rect, Response,
    RichText, Sense, Stroke, StrokeKind, Ui, UiBuilder, Vec2, WidgetInfo,
};

use super::{
    bidi,
    icons::Icon,
    labels,
    media_feeds::{FROZEN_AFTER_SECONDS, MediaFeeds},
    theme::{CORNER, OVERLAY_BACKGROUND, OVERLAY_TEXT, Palette, SMALL},
    yuv_painter::VideoStyle,
};
use crate::{
    engine::TrackRef,
    model::{Size, Source},
};

/// What a tile shows.
#[derive(Debug)]
pub(crate) struct Tile<'a> {
    /// Its video. The level that it shows is that of the microphone beside it.
    pub(crate) track: TrackRef,
    /// Its accessibility label.
    pub(crate) label: String,
    /// The name drawn on it.
    pub(crate) name: &'a str,
    /// The colour and icon of the session.
    pub(crate) session_mark: Option<(Color32, Icon)>,
    /// Whether it is that of the active speaker.
    pub(crate) is_active_speaker: bool,
    /// Whether video is expected.
    pub(crate) has_video: bool,
    /// Whether the video is mirrored.
    pub(crate) mirrored: bool,
    /// Whether a struck-through microphone is drawn.
    pub(crate) muted: bool,
    /// Whether a struck-through camera is drawn.
    pub(crate) camera_off: bool,
    /// The text in the middle, such as the participant's state.
    pub(crate) note: Option<&'a str>,
    /// A sentence that says what is poor about it, and whose connection it is.
    pub(crate) poor: Option<String>,
    /// Figures of its media, in lines.
    pub(crate) figures: &'a [String],
    /// Whether the connection is lost at the moment.
    pub(crate) is_disconnected: bool,
    /// Whether it is pinned. `None` for a tile that cannot be pinned.
    pub(crate) pinned: Option<bool>,
}

impl Tile<'_> {
    /// The track whose level it shows.
    const fn level(&self) -> TrackRef {
        self.track.beside(Source::Microphone)
    }

    /// Draws the tile into `rect`. A click pins it. A tile outside the visible part only takes
    /// keyboard focus.
    pub(crate) fn ui(&self, ui: &mut Ui, rect: Rect, feeds: &MediaFeeds) -> Response {
        let palette = Palette::of(ui);
        let id = ui.scope_id().with((self.track, "tile"));
        let sense = if self.pinned.is_some() { Sense::click() } else { Sense::hover() };
        let response = ui.interact(rect, id, sense);
        let (enabled, label) = (ui.is_enabled(), &self.label);
        response.widget_info(|| match self.pinned {
            Some(pinned) => WidgetInfo::selected(egui::Role::Button, enabled, pinned, label),
            None => WidgetInfo::labeled(egui::Role::Image, enabled, label),
        });
        if !ui.is_rect_visible(rect) {
            return response;
        }
        let painter = ui.painter().with_clip_rect(rect.intersect(ui.clip_rect()));
        painter.rect_filled(rect, CORNER, palette.video_background);
        let pixels = rect.size() * ui.pixels_per_point();
        feeds.note_drawn(self.track, (pixels.x, pixels.y));
        let now = ui.input(|input| input.time);
        let is_frozen = self.has_video && feeds.is_frozen(self.track, now);
        let note = self.draw_video(ui, &painter, (rect, is_frozen), feeds);
        if let Some(note) = note {
            self.draw_note(&painter, rect, note);
        }
        self.draw_caption(&painter, (rect, is_frozen), feeds.loudness(self.level()));
        if !self.figures.is_empty() {
            self.draw_figures(ui, rect);
        }
        let ring = self.ring(&palette, response.has_focus(), feeds.is_speaking(self.level(), now));
        painter.rect_stroke(rect, CORNER, ring, StrokeKind::Inside);
        match &self.poor {
            Some(sentence) => bidi::hover_text(response, sentence),
            None => response,
        }
    }

    /// The border: widest around the active speaker, so that it is found among others who are heard.
    fn ring(&self, palette: &Palette, has_focus: bool, is_heard: bool) -> Stroke {
        let colour = self.session_mark.map_or(palette.accent, |(colour, _)| colour);
        match (has_focus, self.is_active_speaker, is_heard && !self.muted) {
            (true, ..) => Stroke::new(2.0, palette.accent),
            (false, true, _) => Stroke::new(5.0, colour),
            (false, false, true) => Stroke::new(3.0, colour),
            (false, false, false) => Stroke::new(1.0, palette.line),
        }
    }

    /// Draws the video or the initials. Returns the note to draw on it.
    fn draw_video(
        &self,
        ui: &Ui,
        painter: &Painter,
        (rect, is_frozen): (Rect, bool),
        feeds: &MediaFeeds,
    ) -> Option<&str> {
        let newest = feeds.latest_frame(self.track).filter(|_| self.has_video);
        let Some((frame, number, arrived)) = newest else {
            self.draw_initials(painter, rect, feeds.loudness(self.level()));
            // In a small tile the icon in the caption is enough.
            let shows_text = self.camera_off && rect.height() > 150.0;
            return self.note.or(shows_text.then_some("Camera off"));
        };
        let age = ui.input(|input| input.time) - arrived;
        if !is_frozen {
            let wait = std::time::Duration::from_secs_f64(FROZEN_AFTER_SECONDS - age + 0.05);
            ui.ctx().request_repaint_after(wait);
        }
        let brightness = if is_frozen || self.note.is_some() { 0.35 } else { 1.0 };
        let inside = letterbox(rect.shrink(1.0), frame.size);
        let key = (self.track, number);
        let style = VideoStyle { brightness, mirrored: self.mirrored };
        painter.add(feeds.painter().shape(inside, key, frame.clone(), style));
        self.note.or(is_frozen.then_some("Video stopped"))
    }

    /// Draws the figures over the upper part of the video: labels, so that tools can read them.
    fn draw_figures(&self, ui: &mut Ui, rect: Rect) {
        // The pin is in the corner.
        let top = if self.pinned == Some(true) { 34.0 } else { 6.0 };
        let room = Rect::from_min_max(rect.min + Vec2::new(6.0, top), rect.max - Vec2::splat(6.0));
        let clip = rect.intersect(ui.clip_rect());
        let builder = UiBuilder::new().id_salt((self.track, "figures")).max_rect(room);
        let mut figures = ui.new_child(builder.layout(Layout::top_down(Align::Min)));
        figures.set_clip_rect(clip);
        let frame = Frame::new().fill(OVERLAY_BACKGROUND).inner_margin(4).corner_radius(4);
        frame.show(&mut figures, |ui| {
            ui.spacing_mut().item_spacing.y = 1.0;
            for line in self.figures {
                let text = RichText::new(line).font(SMALL).color(OVERLAY_TEXT);
                ui.add(Label::new(text).selectable(false).wrap());
            }
        });
    }

    fn draw_initials(&self, painter: &Painter, rect: Rect, loudness: f32) {
        // Between the top of the tile and its caption, with space for the ring.
        let radius = (rect.height() * 0.2).clamp(10.0, 56.0);
        let centre = rect.center() - Vec2::new(0.0, rect.height() * 0.1);
        let colour = self.session_mark.map_or(OVERLAY_TEXT, |(colour, _)| colour);
        painter.circle_filled(centre, radius, Palette::DARK.control);
        if loudness > 0.0 {
            let ring = radius + 2.0 + radius * 0.35 * loudness;
            painter.circle_stroke(centre, ring, Stroke::new(1.5 + 2.5 * loudness, colour));
        }
        let font = FontId::proportional(radius * 0.8);
        let text = labels::initials(self.name);
        painter.text(centre, Align2::CENTER_CENTER, text, font, OVERLAY_TEXT);
    }

    fn draw_note(&self, painter: &Painter, rect: Rect, note: &str) {
        if rect.height() > 90.0 {
            // Between the initials and the caption.
            let y = (rect.center().y + rect.height() * 0.26).min(rect.bottom() - 38.0);
            let at = Pos2::new(rect.center().x, y);
            draw_shaded_text(painter, at, Align2::CENTER_CENTER, note);
        }
    }

    /// Draws the caption at the bottom: session, name, level, and icons for what is off or lost. It
    /// fits tiles of any size.
    fn draw_caption(&self, painter: &Painter, (rect, is_frozen): (Rect, bool), loudness: f32) {
        let caption_rect = Rect::from_min_max(
            Pos2::new(rect.left() + 6.0, rect.bottom() - 26.0),
            Pos2::new(rect.right() - 6.0, rect.bottom() - 6.0),
        );
        let mut marks = vec![];
        if self.muted {
            marks.push(Icon::Microphone);
        }
        if self.camera_off {
            marks.push(Icon::Camera);
        }
        if self.is_disconnected {
            marks.push(Icon::Wave);
        } else if is_frozen {
            marks.push(Icon::Clock);
        }
        if self.poor.is_some() {
            marks.push(Icon::Bars);
        }
        let mark_width = if self.session_mark.is_some() { 30.0 } else { 6.0 };
        let marks_width = 18.0 * marks.len() as f32;
        let has_wave = loudness > 0.0 && !self.muted && rect.width() >= 100.0;
        let wave_width = if has_wave { 22.0 } else { 0.0 };
        let max_width = caption_rect.width() - mark_width - marks_width - wave_width - 8.0;
        let name = truncated_name(painter, self.name, (max_width, OVERLAY_TEXT));
        let width = mark_width + name.size().x + marks_width + wave_width + 8.0;
        let background =
            Rect::from_min_size(caption_rect.min, Vec2::new(width, caption_rect.height()));
        painter.rect_filled(background, 4.0, OVERLAY_BACKGROUND);
        if let Some((colour, icon)) = self.session_mark {
            painter.circle_filled(background.left_center() + Vec2::new(8.0, 0.0), 4.0, colour);
            let at = background.left_center() + Vec2::new(20.0, 0.0);
            icon.paint(painter, Rect::from_center_size(at, Vec2::splat(11.0)), OVERLAY_TEXT);
        }
        let y = background.center().y - name.size().y / 2.0;
        let x = background.left() + mark_width;
        let end = x + name.size().x;
        painter.galley(Pos2::new(x, y), name, OVERLAY_TEXT);
        for (index, icon) in marks.into_iter().enumerate() {
            let at = Pos2::new(end + 13.0 + 18.0 * index as f32, background.center().y);
            let mark_rect = Rect::from_center_size(at, Vec2::splat(12.0));
            icon.paint(painter, mark_rect, Palette::DARK.warn);
            if !matches!(icon, Icon::Clock | Icon::Bars) {
                Icon::strike_through(painter, mark_rect, Palette::DARK.warn, Color32::BLACK);
            }
        }
        if self.pinned == Some(true) {
            let mark_rect = Rect::from_min_size(rect.min + Vec2::splat(8.0), Vec2::splat(20.0));
            painter.rect_filled(mark_rect, 4.0, OVERLAY_BACKGROUND);
            Icon::Pin.paint(painter, mark_rect.shrink(3.0), OVERLAY_TEXT);
        }
        if has_wave {
            let mark_rect = Rect::from_min_max(
                Pos2::new(background.right() - wave_width - 2.0, background.top() + 4.0),
                Pos2::new(background.right() - 6.0, background.bottom() - 4.0),
            );
            wave(painter, mark_rect, loudness, OVERLAY_TEXT);
        }
    }
}

/// Height of each stroke of the sound wave at full level, relative to the middle one.
const WAVE_HEIGHTS: [f32; 5] = [0.45, 0.8, 1.0, 0.8, 0.45];

/// Draws a sound wave: strokes around a middle line that grow with the loudness, 0 to 1.
///
/// Bars that rise from left to right would look like a connection quality.
pub(crate) fn wave(painter: &Painter, rect: Rect, loudness: f32, colour: Color32) {
    let step = rect.width() / WAVE_HEIGHTS.len() as f32;
    let thickness = (step * 0.5).max(1.5);
    for (index, share) in WAVE_HEIGHTS.into_iter().enumerate() {
        let height = (rect.height() * share * loudness).max(thickness);
        let middle = Pos2::new(rect.left() + step * (index as f32 + 0.5), rect.center().y);
        let stroke = Rect::from_center_size(middle, Vec2::new(thickness, height));
        painter.rect_filled(stroke, thickness / 2.0, colour);
    }
}

/// Size of a chip, in points.
pub(crate) const CHIP_SIZE: Vec2 = Vec2::new(132.0, 28.0);

/// Draws a chip for a disconnected participant whose seat is reserved: pale, with the colour and
/// icon of the session.
pub(crate) fn disconnected_chip(
    ui: &mut Ui,
    rect: Rect,
    participant: (&str, &str),
    session_mark: (Color32, Icon),
) {
    let (name, label) = participant;
    let palette = Palette::of(ui);
    let response = ui.interact(rect, ui.next_auto_id(), Sense::hover());
    ui.skip_ahead_auto_ids(1);
    response.widget_info(|| WidgetInfo::labeled(egui::Role::Label, true, label));
    let painter = ui.painter();
    painter.rect_filled(rect, CORNER, palette.control);
    painter.circle_filled(rect.left_center() + Vec2::new(12.0, 0.0), 4.0, session_mark.0);
    let icon = |x: f32| Rect::from_center_size(Pos2::new(x, rect.center().y), Vec2::splat(12.0));
    session_mark.1.paint(painter, icon(rect.left() + 26.0), palette.muted);
    let lost = icon(rect.right() - 14.0);
    Icon::Wave.paint(painter, lost, palette.muted);
    Icon::strike_through(painter, lost, palette.muted, palette.control);
    let name = truncated_name(painter, name, (rect.width() - 62.0, palette.muted));
    let at = Pos2::new(rect.left() + 38.0, rect.center().y - name.size().y / 2.0);
    painter.galley(at, name, palette.muted);
    bidi::hover_text(response, label);
}

/// The largest rectangle inside `rect` with the aspect ratio of the video.
pub(crate) fn letterbox(rect: Rect, size: Size) -> Rect {
    let video = Vec2::new(size.width as f32, size.height as f32);
    let scale = (rect.width() / video.x).min(rect.height() / video.y);
    Rect::from_center_size(rect.center(), video * scale)
}

fn truncated_name(
    painter: &Painter,
    text: &str,
    (max_width, colour): (f32, Color32),
) -> std::sync::Arc<eframe::egui::Galley> {
    let mut job = eframe::egui::text::LayoutJob::simple_singleline(text.to_owned(), SMALL, colour);
    job.wrap = eframe::egui::text::TextWrapping::truncate_at_width(max_width.max(16.0));
    bidi::layout(painter, job)
}

fn draw_shaded_text(painter: &Painter, at: Pos2, align: Align2, text: &str) {
    let galley = painter.layout_no_wrap(text.to_owned(), SMALL, OVERLAY_TEXT);
    let rect = align.anchor_size(at, galley.size() + Vec2::new(12.0, 4.0));
    painter.rect_filled(rect, 4.0, OVERLAY_BACKGROUND);
    painter.galley(rect.min + Vec2::new(6.0, 2.0), galley, OVERLAY_TEXT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_video_keeps_its_aspect_ratio_and_stays_inside() {
        let rect = Rect::from_min_size(Pos2::new(10.0, 20.0), Vec2::new(200.0, 300.0));
        for (width, height) in [(1280, 720), (720, 1280), (640, 480), (100, 100)] {
            let inside = letterbox(rect, Size::new(width, height));
            assert!(rect.expand(0.01).contains_rect(inside));
            let (is, was) = (inside.width() / inside.height(), width as f32 / height as f32);
            assert!((is - was).abs() < 0.001);
        }
    }
}
