//! The sizes and positions of the tiles in a stream panel: arithmetic, without any drawing.

use eframe::egui::{self, Rect, Vec2};

use super::{theme::GRID, tile};

/// Minimum width of a tile, in points: a name can still be read. With more tiles the panel scrolls.
const MIN_TILE_WIDTH: f32 = 132.0;

/// Tiles may shrink to this part of the largest possible width if their rows are full then.
const MIN_SIZE_FOR_FULL_ROWS: f32 = 0.9;

/// The aspect ratio of tiles.
pub(super) const ASPECT: f32 = 16.0 / 9.0;

/// The number of tiles of each size, and of chips.
#[derive(Clone, Copy, Debug)]
pub(super) struct TileCounts {
    pub(super) large: usize,
    pub(super) small: usize,
    /// The disconnected participants whose seats are reserved.
    pub(super) chips: usize,
}

/// The rectangles of all tiles and chips, relative to the panel's top left, in points.
#[derive(Debug)]
pub(super) struct TileLayout {
    /// The large tiles, then the small ones.
    pub(super) tiles: Vec<Rect>,
    /// The chips, in rows below the tiles.
    pub(super) chips: Vec<Rect>,
    /// The total height. If it exceeds the panel's, the panel scrolls.
    pub(super) height: f32,
}

impl TileLayout {
    /// Lays out all tiles in a space of that size. The scroll bar takes its width only if it is
    /// needed.
    pub(super) fn fit(space: Vec2, bar: f32, counts: TileCounts) -> Self {
        let layout = Self::in_space(space, counts);
        if layout.height <= space.y {
            return layout;
        }
        Self::in_space(Vec2::new(space.x - bar, space.y), counts)
    }

    fn in_space(space: Vec2, TileCounts { large, small, chips }: TileCounts) -> Self {
        let pitch = tile::CHIP_SIZE + Vec2::splat(GRID);
        let columns = ((space.x + GRID) / pitch.x).floor().max(1.0) as usize;
        let foot = chips.div_ceil(columns) as f32 * pitch.y;
        if large + small == 0 {
            return Self { tiles: vec![], chips: chip_rects(chips, columns, 0.0), height: foot };
        }
        let (tiles, height) = tile_rects(Vec2::new(space.x, space.y - foot), large, small);
        let chips = chip_rects(chips, columns, height + GRID);
        Self { tiles, chips, height: height + foot }
    }
}

/// The rectangles of the chips, in rows of `columns` from `top` on.
fn chip_rects(count: usize, columns: usize, top: f32) -> Vec<Rect> {
    let pitch = tile::CHIP_SIZE + Vec2::splat(GRID);
    let at = |index: usize| {
        let (row, column) = (index / columns, index % columns);
        egui::pos2(column as f32 * pitch.x, top + row as f32 * pitch.y)
    };
    (0..count).map(|index| Rect::from_min_size(at(index), tile::CHIP_SIZE)).collect()
}

/// The rectangles of the large and then of the small tiles in a space of that size, and the total
/// height.
fn tile_rects(space: Vec2, large: usize, small: usize) -> (Vec<Rect>, f32) {
    let origin = egui::Pos2::ZERO;
    let all = Rect::from_min_size(origin, space);
    if large == 0 || small == 0 {
        return grid_rects(all, large.max(small));
    }
    // The large tiles get two thirds of the height.
    let split_y = (space.y * 2.0 / 3.0).round();
    let above = Rect::from_min_max(origin, egui::pos2(space.x, split_y - GRID / 2.0));
    let (mut rects, height) = grid_rects(above, large);
    let top = height.max(split_y) + GRID / 2.0;
    let remaining = (space.y - top).max(MIN_TILE_WIDTH / ASPECT);
    let below = Rect::from_min_size(egui::pos2(0.0, top), Vec2::new(space.x, remaining));
    let (others, height) = grid_rects(below, small);
    rects.extend(others);
    (rects, top + height)
}

/// The rectangles of `count` tiles, and the total height. The number of columns makes the tiles
/// largest, or nearly so with fuller rows. Each row is centred.
fn grid_rects(area: Rect, count: usize) -> (Vec<Rect>, f32) {
    let (columns, width) = best_columns(area, count.max(1));
    let (columns, width) = if width >= MIN_TILE_WIDTH {
        (columns, width)
    } else {
        let columns = ((area.width() + GRID) / (MIN_TILE_WIDTH + GRID)).floor().max(1.0);
        (columns as usize, (area.width() - GRID * (columns - 1.0)) / columns)
    };
    let tile = Vec2::new(width.floor(), (width / ASPECT).floor());
    let rows = count.div_ceil(columns);
    let height = rows as f32 * (tile.y + GRID) - GRID;
    let top = area.top() + ((area.height() - height) / 2.0).max(0.0).floor();
    let rects = (0..count).map(|index| {
        let (row, column) = (index / columns, index % columns);
        let in_row = (count - row * columns).min(columns) as f32;
        let row_width = in_row * (tile.x + GRID) - GRID;
        let left = area.left() + ((area.width() - row_width) / 2.0).max(0.0).floor();
        let x = left + column as f32 * (tile.x + GRID);
        Rect::from_min_size(egui::pos2(x, top + row as f32 * (tile.y + GRID)), tile)
    });
    (rects.collect(), height.max(area.height()))
}

/// The number of columns for that many tiles, and the width of a tile.
fn best_columns(area: Rect, count: usize) -> (usize, f32) {
    let width = |columns: usize| {
        let rows = count.div_ceil(columns);
        let across = (area.width() - GRID * (columns - 1) as f32) / columns as f32;
        let down = (area.height() - GRID * (rows - 1) as f32) / rows as f32;
        across.min(down * ASPECT)
    };
    let all = || (1..=count).map(|columns| (columns, width(columns)));
    let greatest = all().map(|(_, width)| width).fold(0.0, f32::max);
    let empty = |columns: usize| count.div_ceil(columns) * columns - count;
    let good = all().filter(|(_, width)| *width >= MIN_SIZE_FOR_FULL_ROWS * greatest);
    let best = good.min_by(|(one, wide), (other, wider)| {
        empty(*one).cmp(&empty(*other)).then(wider.total_cmp(wide))
    });
    best.unwrap_or((1, area.width()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_never_overlap_nor_leave_the_panels_width() {
        for (width, height) in [(700.0, 640.0), (500.0, 280.0), (200.0, 900.0), (90.0, 40.0)] {
            for (large, small) in [(0, 1), (0, 5), (0, 25), (1, 0), (1, 24), (2, 3), (3, 9)] {
                let (rects, all) = tile_rects(Vec2::new(width, height), large, small);
                assert_eq!(rects.len(), large + small);
                for (index, rect) in rects.iter().enumerate() {
                    assert!(rect.left() >= 0.0 && rect.right() <= width + 0.01, "{rect:?}");
                    assert!(rect.top() >= 0.0 && rect.bottom() <= all + 0.01, "{rect:?} in {all}");
                    let clear = |other: &Rect| !rect.shrink(0.5).intersects(*other);
                    assert!(rects[index + 1..].iter().all(clear), "{rects:?}");
                }
            }
        }
    }

    #[test]
    fn nine_tiles_fill_three_rows_if_that_costs_little_size() {
        let (rects, _) = tile_rects(Vec2::new(672.0, 684.0), 0, 9);
        let mut rows: Vec<_> = rects.iter().map(|rect| rect.top() as i32).collect();
        rows.dedup();
        assert_eq!(rows.len(), 3, "{rects:?}");
    }

    #[test]
    fn a_pinned_tile_is_the_largest() {
        let (rects, _) = tile_rects(Vec2::new(700.0, 600.0), 1, 8);
        assert!(rects[1..].iter().all(|rect| rect.area() < rects[0].area() / 2.0));
    }

    /// The size of the remote panel in windows of several sizes, with the chat open and closed, as
    /// the layout computes it.
    const PANELS: [(&str, f32, f32); 5] = [
        ("640x480", 316.0, 174.0),
        ("800x600", 476.0, 294.0),
        ("1280x800", 664.0, 672.0),
        ("1280x800 with the chat", 352.0, 672.0),
        ("1920x1080", 1304.0, 952.0),
    ];

    #[test]
    fn no_tile_is_cut_by_the_scroll_bar_or_narrower_than_the_minimum() {
        let bar = 6.0;
        for (size, width, height) in PANELS {
            for tiles in [1, 2, 3, 4, 6, 9, 16, 24, 100] {
                for chips in [0, 1, 5] {
                    let counts = TileCounts { large: 0, small: tiles, chips };
                    let layout = TileLayout::fit(Vec2::new(width, height), bar, counts);
                    let case = format!("{tiles} tiles and {chips} chips in {size}: {layout:?}");
                    let scrolls = layout.height > height;
                    let right = if scrolls { width - bar } else { width };
                    assert_eq!((layout.tiles.len(), layout.chips.len()), (tiles, chips), "{case}");
                    for rect in layout.tiles.iter().chain(&layout.chips) {
                        assert!(rect.left() >= 0.0 && rect.right() <= right + 0.01, "{case}");
                        assert!(rect.bottom() <= layout.height + 0.01, "{case}");
                        assert!(rect.width() >= MIN_TILE_WIDTH - 1.0, "{case}");
                    }
                    let lowest = layout.tiles.iter().map(|rect| rect.bottom()).fold(0.0, f32::max);
                    assert!(layout.chips.iter().all(|chip| chip.top() >= lowest), "{case}");
                }
            }
        }
    }

    #[test]
    fn each_window_size_has_the_designed_number_of_columns() {
        let columns = |width: f32, height: f32, tiles: usize| {
            let counts = TileCounts { large: 0, small: tiles, chips: 0 };
            let layout = TileLayout::fit(Vec2::new(width, height), 6.0, counts);
            let top = layout.tiles[0].top();
            layout.tiles.iter().filter(|rect| rect.top() == top).count()
        };
        for ((size, width, height), wanted) in PANELS.into_iter().zip([
            [1, 2, 2, 2],
            [1, 2, 3, 3],
            [1, 2, 3, 4],
            [1, 1, 2, 2],
            [1, 2, 3, 4],
        ]) {
            assert_eq!([1, 4, 9, 24].map(|tiles| columns(width, height, tiles)), wanted, "{size}");
        }
    }

    #[test]
    fn chips_without_tiles_are_at_the_top() {
        let counts = TileCounts { large: 0, small: 0, chips: 3 };
        let layout = TileLayout::fit(Vec2::new(300.0, 200.0), 6.0, counts);
        assert_eq!(layout.chips[0].min, egui::Pos2::ZERO);
        assert_eq!(layout.chips[2].min, egui::pos2(0.0, tile::CHIP_SIZE.y + GRID));
    }
}
