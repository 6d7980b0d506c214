//! The statistics of all connections, in a window of their own inside the main one.

mod reader;
mod streams;
mod tile_figures;

use eframe::egui::{
    self, Align2, CollapsingHeader, Color32, Context, Grid, Label, RichText, ScrollArea, Ui, Window,
};

use self::streams::{StreamColumn, rows};
pub(crate) use self::{reader::StatisticsReader, tile_figures::TileFigures};
use super::{
    action::Action,
    bidi, labels,
    theme::{GRID, Palette, SMALL},
};
use crate::model::{
    CandidatePairStats, CandidateStats, CandidateType, IceTransportState, MediaSourceStats,
    ParticipantStats, RtcStats, SessionStats, Snapshot, Stats, TransportStats,
};

/// Height of a row of a table, in points.
const ROW_HEIGHT: f32 = 20.0;

/// With more participants than this, their tables are folded at first.
const MAX_UNFOLDED: usize = 3;

/// The statistics panel.
#[derive(Default)]
pub(crate) struct StatisticsPanel {
    is_open: bool,
    stats: Option<Stats>,
}

impl StatisticsPanel {
    /// Shows the panel, or hides it if it is shown.
    pub(crate) fn toggle(&mut self) {
        // Figures of an earlier time say nothing about this one.
        *self = Self { is_open: !self.is_open, stats: None };
    }

    /// Whether it is shown.
    pub(crate) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Shows these statistics from now on.
    pub(crate) fn on_stats(&mut self, stats: Stats) {
        self.stats = Some(stats);
    }

    /// Draws the panel, if it is shown.
    ///
    /// `on_tiles` tells whether figures are shown on the tiles as well.
    pub(crate) fn draw(
        &mut self,
        ctx: &Context,
        snapshot: &Snapshot,
        on_tiles: bool,
    ) -> Option<Action> {
        let mut is_open = self.is_open;
        let room = ctx.content_rect().shrink(2.0 * GRID);
        let window = Window::new("Statistics")
            .open(&mut is_open)
            .pivot(Align2::RIGHT_TOP)
            .default_pos(room.right_top())
            .default_size(egui::vec2(740.0, 600.0).min(room.size()))
            .max_size(room.size())
            .constrain_to(room);
        let drawn = window.show(ctx, |ui| {
            let switch = tiles_checkbox(ui, on_tiles);
            let content = |ui: &mut Ui| self.content(ui, snapshot);
            switch.or(ScrollArea::both().auto_shrink(false).show(ui, content).inner)
        });
        if !is_open && self.is_open {
            self.toggle();
        }
        drawn?.inner?
    }

    fn content(&self, ui: &mut Ui, snapshot: &Snapshot) -> Option<Action> {
        let Some(stats) = &self.stats else {
            ui.label(RichText::new("Measuring …").weak());
            return None;
        };
        for source in media_sources(&stats.rtc) {
            ui.label(RichText::new(source_line(source)).font(SMALL));
        }
        let count = stats.sessions.iter().map(|session| session.participants.len()).sum::<usize>();
        if count == 0 {
            ui.label(RichText::new("Nobody is connected to you.").weak());
        }
        for session in &stats.sessions {
            for participant in &session.participants {
                participant_section(ui, (snapshot, count), (session, participant));
            }
        }
        copy_button(ui, stats)
    }
}

/// Draws the switch of the figures on the tiles.
fn tiles_checkbox(ui: &mut Ui, mut is_on: bool) -> Option<Action> {
    let switch = ui.checkbox(&mut is_on, "Figures on the tiles");
    let switch = switch.on_hover_text("Ctrl+Shift+F");
    switch.changed().then_some(Action::ToggleTileFigures)
}

/// Draws the button that copies everything.
fn copy_button(ui: &mut Ui, stats: &Stats) -> Option<Action> {
    ui.add_space(GRID);
    let tip = "Everything above and more, with the names of W3C webrtc-stats. It contains network \
               addresses.";
    let is_clicked = ui.button("Copy as JSON").on_hover_text(tip).clicked();
    let json = is_clicked.then(|| serde_json::to_string_pretty(stats).ok()).flatten()?;
    Some(Action::Copy(json, "Statistics".to_owned()))
}

/// Draws one participant of one session: the path, and a table of the streams.
fn participant_section(
    ui: &mut Ui,
    (snapshot, count): (&Snapshot, usize),
    (session, participant): (&SessionStats, &ParticipantStats),
) {
    let palette = Palette::of(ui);
    let place = labels::session_name_in_sentence(snapshot, &session.session);
    let title = format!("{}, {place}", bidi::isolated(&participant.name));
    let id = (session.session.as_str(), participant.participant.as_str());
    ui.separator();
    let header = CollapsingHeader::new(RichText::new(title).strong()).id_salt(id);
    header.default_open(count <= MAX_UNFOLDED).show(ui, |ui| {
        let path = Path::of(&participant.rtc);
        let Some(path) = path else {
            ui.label(RichText::new("No connection yet.").font(SMALL).color(palette.muted));
            return;
        };
        path.ui(ui);
        let columns = StreamColumn::of(&participant.rtc);
        if columns.is_empty() {
            let text = "No audio or video was sent or received yet.";
            ui.label(RichText::new(text).font(SMALL).color(palette.muted));
        } else {
            let grid = Grid::new(("streams", id)).striped(true).spacing([2.0 * GRID, 0.0]);
            grid.min_row_height(ROW_HEIGHT).show(ui, |ui| {
                stream_table(ui, &columns);
            });
        }
    });
}

/// Draws the rows of the streams: what, a value for each stream, and the name in webrtc-stats.
fn stream_table(ui: &mut Ui, columns: &[StreamColumn<'_>]) {
    let palette = Palette::of(ui);
    let cell = |ui: &mut Ui, text: &str, colour: Color32| {
        ui.add(Label::new(RichText::new(text).font(SMALL).color(colour)).extend());
    };
    cell(ui, "", palette.muted);
    for column in columns {
        cell(ui, &column.title(), palette.text);
    }
    cell(ui, "in W3C webrtc-stats", palette.muted);
    ui.end_row();
    for row in rows(columns) {
        cell(ui, row.label, palette.muted);
        for value in &row.values {
            cell(ui, value.as_deref().unwrap_or("–"), palette.text);
        }
        cell(ui, row.member, palette.muted);
        ui.end_row();
    }
}

/// The path to a participant.
struct Path<'a> {
    transport: &'a TransportStats,
    pair: Option<&'a CandidatePairStats>,
    local: Option<&'a CandidateStats>,
    remote: Option<&'a CandidateStats>,
}

impl<'a> Path<'a> {
    /// `None` without a peer connection.
    fn of(objects: &'a [RtcStats]) -> Option<Self> {
        let transport = objects.iter().find_map(|object| {
            let RtcStats::Transport(transport) = object else { return None };
            Some(transport)
        })?;
        let pair = objects.iter().find_map(|object| {
            let RtcStats::CandidatePair(pair) = object else { return None };
            Some(pair)
        });
        let candidate = |id: &str| {
            objects.iter().find_map(|object| {
                let (RtcStats::LocalCandidate(one) | RtcStats::RemoteCandidate(one)) = object
                else {
                    return None;
                };
                (one.id == id).then_some(one)
            })
        };
        let local = pair.and_then(|pair| candidate(&pair.local_candidate_id));
        let remote = pair.and_then(|pair| candidate(&pair.remote_candidate_id));
        Some(Self { transport, pair, local, remote })
    }

    fn ui(&self, ui: &mut Ui) {
        let palette = Palette::of(ui);
        let (state, is_good) = ice_state(self.transport.ice_state);
        let colour = if is_good { palette.text } else { palette.warn };
        ui.label(RichText::new(self.summary(state)).font(SMALL).color(colour));
        if let (Some(local), Some(remote)) = (self.local, self.remote) {
            let text = format!("{}  to  {}", candidate(local), candidate(remote));
            ui.label(RichText::new(text).font(SMALL).color(palette.muted));
        }
    }

    fn summary(&self, state: &str) -> String {
        let mut parts = vec![state.to_owned()];
        if let Some(pair) = self.pair {
            let time = pair.current_round_trip_time;
            parts.extend(time.map(|time| format!("round trip {}", milliseconds(time))));
            parts.extend(pair.bitrate_sent.map(|rate| format!("sending {}", bitrate(rate))));
            let received = pair.bitrate_received;
            parts.extend(received.map(|rate| format!("receiving {}", bitrate(rate))));
        }
        parts.join("  ·  ")
    }
}

/// The state in words, and whether it is a good one.
const fn ice_state(state: Option<IceTransportState>) -> (&'static str, bool) {
    match state {
        None | Some(IceTransportState::New) => ("Not connected yet", true),
        Some(IceTransportState::Checking) => ("Looking for a path", true),
        Some(IceTransportState::Connected | IceTransportState::Completed) => ("Connected", true),
        Some(IceTransportState::Disconnected) => ("No packet arrives", false),
        Some(IceTransportState::Failed) => ("No path works", false),
        Some(IceTransportState::Closed) => ("Closed", false),
    }
}

fn candidate(candidate: &CandidateStats) -> String {
    let kind = match candidate.candidate_type {
        CandidateType::Host => "own address",
        CandidateType::Srflx => "behind a router, by STUN",
        CandidateType::Prflx => "behind a router",
        CandidateType::Relay => "relay",
    };
    let address = std::net::SocketAddr::new(candidate.address, candidate.port);
    format!("{address} ({kind})")
}

fn media_sources(objects: &[RtcStats]) -> impl Iterator<Item = &MediaSourceStats> {
    objects.iter().filter_map(|object| {
        let RtcStats::MediaSource(source) = object else { return None };
        Some(source)
    })
}

/// One line about a source of this end, and its encoder.
fn source_line(source: &MediaSourceStats) -> String {
    let mut parts = vec![];
    if let (Some(width), Some(height)) = (source.width, source.height) {
        parts.push(format!("{width} × {height}"));
    }
    parts.extend(source.frames_per_second.map(|rate| format!("{rate:.1} frames/s")));
    parts.extend(source.target_bitrate.map(|rate| format!("target {}", bitrate(rate))));
    if let (Some(time), Some(frames @ 1..)) = (source.total_encode_time, source.frames_encoded) {
        parts.push(format!("{} to encode a frame", milliseconds(time / frames as f64)));
    }
    parts.extend(source.key_frames_encoded.map(|count| format!("keyframes: {count}")));
    parts.extend(source.frames_skipped.map(|count| format!("frames skipped: {count}")));
    parts.extend(source.audio_level.map(level));
    let encoder = source.encoder_implementation.map(|name| format!(", encoded by {name}"));
    format!("Your {}{}:  {}", source.id, encoder.unwrap_or_default(), parts.join("  ·  "))
}

/// A time in seconds, as text.
fn milliseconds(seconds: f64) -> String {
    let ms = seconds * 1000.0;
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

fn bitrate(bits: u64) -> String {
    let kbit = bits as f64 / 1000.0;
    match kbit {
        ..10.0 => format!("{kbit:.1} kbit/s"),
        ..1000.0 => format!("{kbit:.0} kbit/s"),
        _ => format!("{:.2} Mbit/s", kbit / 1000.0),
    }
}

/// A linear level, in decibels.
fn level(linear: f64) -> String {
    if linear > 0.0 { format!("{:.0} dB", 20.0 * linear.log10()) } else { "silent".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_units_and_few_digits() {
        let rates = [0, 2_340, 9_990, 640_400, 1_512_000].map(bitrate);
        let expected = ["0.0 kbit/s", "2.3 kbit/s", "10.0 kbit/s", "640 kbit/s", "1.51 Mbit/s"];
        assert_eq!(rates, expected);
        assert_eq!([0.00123, 0.0123, 1.5].map(milliseconds), ["1.2 ms", "12 ms", "1500 ms"]);
        assert_eq!([0.0, 0.1, 1.0].map(level), ["silent", "-20 dB", "0 dB"]);
    }
}
