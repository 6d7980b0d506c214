//! A software rasterizer for egui's shapes. It draws the same pixels on every machine.
//!
//! Live video is left out: a shader draws it. A tile shows its background instead.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use eframe::egui::{
    Color32, ColorImage, ImageData, Pos2, Rect, TextureId, TexturesDelta,
    epaint::{ClippedPrimitive, Mesh, Primitive, Vertex},
};
use egui_kittest::TestRenderer;

/// The textures that egui has created so far. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Textures(Rc<RefCell<BTreeMap<TextureId, ColorImage>>>);

impl TestRenderer for Textures {
    fn handle_delta(&mut self, delta: &mut TexturesDelta) {
        let mut textures = self.0.borrow_mut();
        for (id, deltas) in std::mem::take(&mut delta.set) {
            for delta in deltas {
                let ImageData::Color(patch) = delta.image;
                match (delta.pos, textures.get_mut(&id)) {
                    (Some(at), Some(whole)) => copy_patch(whole, &patch, at),
                    (Some(_) | None, _) => drop(textures.insert(id, (*patch).clone())),
                }
            }
        }
    }
}

fn copy_patch(whole: &mut ColorImage, patch: &ColorImage, [left, top]: [usize; 2]) {
    for (row, line) in patch.pixels.chunks(patch.size[0]).enumerate() {
        let at = (top + row) * whole.size[0] + left;
        whole.pixels[at..at + line.len()].copy_from_slice(line);
    }
}

/// An opaque image, rows from the top.
#[derive(Clone, PartialEq)]
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    /// Red, green and blue of each pixel, 0 to 255.
    pixels: Vec<[f32; 3]>,
}

impl Canvas {
    /// Draws the shapes in order, one pixel per point.
    pub(super) fn draw(
        (width, height): (usize, usize),
        shapes: &[ClippedPrimitive],
        textures: &Textures,
    ) -> Self {
        let mut canvas = Self { width, height, pixels: vec![[0.0; 3]; width * height] };
        let textures = textures.0.borrow();
        for ClippedPrimitive { clip_rect, primitive } in shapes {
            let Primitive::Mesh(mesh) = primitive else { continue };
            let texture = textures.get(&mesh.texture_id).expect("egui has created the texture");
            canvas.mesh(mesh, *clip_rect, texture);
        }
        canvas
    }

    /// Red, green and blue of each pixel in 32 steps. Finer steps are not compared and would make
    /// the files larger.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let step = |value: &f32| value.round().clamp(0.0, 255.0) as u8 & 0xF8;
        self.pixels.iter().flatten().map(step).collect()
    }

    fn mesh(&mut self, mesh: &Mesh, clip: Rect, texture: &ColorImage) {
        for corners in mesh.indices.chunks_exact(3) {
            let corner = |index: usize| mesh.vertices[corners[index] as usize];
            self.triangle([corner(0), corner(1), corner(2)], clip, texture);
        }
    }

    fn triangle(&mut self, mut corners: [Vertex; 3], clip: Rect, texture: &ColorImage) {
        let area = cross(corners[0].pos, corners[1].pos, corners[2].pos);
        if area == 0.0 {
            return;
        }
        if area < 0.0 {
            corners.swap(1, 2);
        }
        let [a, b, c] = corners;
        let bounds = Rect::from_points(&[a.pos, b.pos, c.pos]).intersect(clip);
        let span = |from: f32, to: f32, most: usize| {
            let pixel = |side: f32| (side - 0.5).ceil().clamp(0.0, most as f32) as usize;
            pixel(from)..pixel(to)
        };
        for y in span(bounds.top(), bounds.bottom() + 1.0, self.height) {
            for x in span(bounds.left(), bounds.right() + 1.0, self.width) {
                let at = Pos2::new(x as f32 + 0.5, y as f32 + 0.5);
                if !is_inside(at, clip) {
                    continue;
                }
                let edges = [(b.pos, c.pos), (c.pos, a.pos), (a.pos, b.pos)];
                let weights = edges.map(|(from, to)| cross(from, to, at));
                let covers = edges.iter().zip(weights).all(|(edge, weight)| {
                    weight > 0.0 || (weight == 0.0 && is_top_or_left_edge(*edge))
                });
                if covers {
                    let weights = weights.map(|weight| weight / area.abs());
                    self.blend(y * self.width + x, shade(corners, weights, texture));
                }
            }
        }
    }

    /// Blends premultiplied colours in gamma space, as egui does on a graphics card.
    fn blend(&mut self, at: usize, [red, green, blue, alpha]: [f32; 4]) {
        for (below, above) in self.pixels[at].iter_mut().zip([red, green, blue]) {
            *below = above + *below * (1.0 - alpha / 255.0);
        }
    }
}

fn cross(a: Pos2, b: Pos2, c: Pos2) -> f32 {
    (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x)
}

/// Whether the edge is a top or left edge. Of two triangles that share an edge, only that one draws
/// the pixels on it.
fn is_top_or_left_edge((from, to): (Pos2, Pos2)) -> bool {
    to.y < from.y || (to.y == from.y && to.x > from.x)
}

fn is_inside(at: Pos2, clip: Rect) -> bool {
    let (left, right) = (clip.left().round(), clip.right().round());
    let (top, bottom) = (clip.top().round(), clip.bottom().round());
    (left..right).contains(&at.x) && (top..bottom).contains(&at.y)
}

fn shade(corners: [Vertex; 3], weights: [f32; 3], texture: &ColorImage) -> [f32; 4] {
    let (mut colour, mut u, mut v) = ([0.0; 4], 0.0, 0.0);
    for (corner, weight) in corners.iter().zip(weights) {
        for (sum, part) in colour.iter_mut().zip(corner.color.to_array()) {
            *sum += weight * f32::from(part);
        }
        u += weight * corner.uv.x;
        v += weight * corner.uv.y;
    }
    let texel = sample(texture, u, v);
    [0, 1, 2, 3].map(|part| colour[part] * texel[part] / 255.0)
}

/// The bilinear sample of the texture at that position.
fn sample(texture: &ColorImage, u: f32, v: f32) -> [f32; 4] {
    let [width, height] = texture.size;
    let (x, y) = (u * width as f32 - 0.5, v * height as f32 - 0.5);
    let pixel = |x: f32, y: f32| -> Color32 {
        let column = x.clamp(0.0, width as f32 - 1.0) as usize;
        let row = y.clamp(0.0, height as f32 - 1.0) as usize;
        texture.pixels[row * width + column]
    };
    let (left, top) = (x.floor(), y.floor());
    let (right_share, bottom_share) = (x - left, y - top);
    let near = [
        (pixel(left, top), (1.0 - right_share) * (1.0 - bottom_share)),
        (pixel(left + 1.0, top), right_share * (1.0 - bottom_share)),
        (pixel(left, top + 1.0), (1.0 - right_share) * bottom_share),
        (pixel(left + 1.0, top + 1.0), right_share * bottom_share),
    ];
    let mut sum = [0.0; 4];
    for (colour, share) in near {
        for (part, value) in sum.iter_mut().zip(colour.to_array()) {
            *part += share * f32::from(value);
        }
    }
    sum
}
