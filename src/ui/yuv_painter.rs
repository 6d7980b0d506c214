//! Draws I420 frames with OpenGL: three textures and a shader. A frame is uploaded only once.
#![expect(unsafe_code, reason = "OpenGL is called through pointers; this file alone does it")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cpu_time::ThreadTime;
use eframe::{
    egui::{self, Rect},
    egui_glow::{self, ShaderVersion},
    glow::{self, HasContext as _},
};

use crate::{engine::TrackRef, media::VideoFrame, model::Size};

/// Draws video frames. Clones share the textures.
#[derive(Clone, Default)]
pub(crate) struct YuvPainter {
    // egui stores the paint callback and requires it to be `Sync`, hence the lock. Only the
    // window's thread takes it, so it is never contended.
    gpu: Arc<Mutex<GpuState>>,
}

impl YuvPainter {
    /// A shape that fills `rect` with the frame. `number` identifies a frame of the source.
    pub(crate) fn shape(
        &self,
        rect: Rect,
        (source, number): (TrackRef, u64),
        frame: VideoFrame,
        style: VideoStyle,
    ) -> egui::Shape {
        let card = Arc::clone(&self.gpu);
        let draw = move |info: egui::PaintCallbackInfo, painter: &egui_glow::Painter| {
            let viewport = info.viewport_in_pixels();
            let params = DrawParams {
                width: viewport.width_px as f32,
                height: viewport.height_px as f32,
                radius: 6.0 * info.pixels_per_point,
                style,
            };
            let mut card = card.lock().unwrap_or_else(PoisonError::into_inner);
            card.draw(painter.gl(), (source, number), &frame, params);
        };
        let callback = Arc::new(egui_glow::CallbackFn::new(draw));
        egui::Shape::Callback(egui::PaintCallback { rect, callback })
    }

    /// Deletes the textures of a source at the next drawing.
    pub(crate) fn release(&self, source: TrackRef) {
        let mut card = self.gpu.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(planes) = card.textures.remove(&source) {
            card.to_delete.push(planes);
        }
    }
}

/// How a frame is shown.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct VideoStyle {
    /// Brightness: 1 for live video, less for frozen video.
    pub(crate) brightness: f32,
    /// Whether left and right are swapped.
    pub(crate) mirrored: bool,
}

/// The OpenGL objects of this painter.
#[derive(Default)]
struct GpuState {
    /// `None` before the first drawing. An error if the driver rejected the shader.
    program: Option<Result<Program, ()>>,
    textures: BTreeMap<TrackRef, FrameTextures>,
    to_delete: Vec<FrameTextures>,
}

#[derive(Clone, Copy)]
struct Program {
    program: glow::Program,
    vertices: glow::VertexArray,
}

/// The textures of one source: Y, U, V.
struct FrameTextures {
    textures: [glow::Texture; 3],
    size: Size,
    frame_number: u64,
}

/// Parameters of a drawing. Sizes are in physical pixels.
#[derive(Clone, Copy)]
struct DrawParams {
    width: f32,
    height: f32,
    radius: f32,
    style: VideoStyle,
}

impl GpuState {
    fn draw(
        &mut self,
        gl: &glow::Context,
        (source, number): (TrackRef, u64),
        frame: &VideoFrame,
        params: DrawParams,
    ) {
        for planes in self.to_delete.drain(..) {
            planes.delete(gl);
        }
        let program = *self.program.get_or_insert_with(|| Program::new(gl));
        let Ok(program) = program else { return };
        if self.textures.get(&source).is_some_and(|planes| planes.size != frame.size)
            && let Some(planes) = self.textures.remove(&source)
        {
            planes.delete(gl);
        }
        let planes = match self.textures.entry(source) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let Some(planes) = FrameTextures::new(gl, frame.size) else { return };
                entry.insert(planes)
            }
        };
        if planes.frame_number != number {
            let before = thread_time();
            planes.upload(gl, frame);
            planes.frame_number = number;
            if let (Some(before), Some(after)) = (before, thread_time()) {
                tracing::trace!(size = %frame.size, cost = ?(after - before), "frame uploaded");
            }
        }
        program.draw(gl, planes, params);
    }
}

impl Program {
    fn new(gl: &glow::Context) -> Result<Self, ()> {
        // SAFETY: the context is current, since egui calls this while it paints. Every object used
        // was created here, in this context.
        let made = unsafe { Self::compile(gl) };
        made.map_err(|error| tracing::error!(%error, "the video shader was rejected"))
    }

    /// # Safety
    /// The context must be current on this thread.
    unsafe fn compile(gl: &glow::Context) -> Result<Self, String> {
        let version = ShaderVersion::get(gl).version_declaration();
        // SAFETY: as the caller promises. Shaders are deleted after they are linked.
        unsafe {
            let program = gl.create_program()?;
            let mut shaders = vec![];
            for (kind, text) in [(glow::VERTEX_SHADER, VERTEX), (glow::FRAGMENT_SHADER, FRAGMENT)] {
                let shader = gl.create_shader(kind)?;
                gl.shader_source(shader, &format!("{version}\n{text}"));
                gl.compile_shader(shader);
                if !gl.get_shader_compile_status(shader) {
                    return Err(gl.get_shader_info_log(shader));
                }
                gl.attach_shader(program, shader);
                shaders.push(shader);
            }
            gl.link_program(program);
            if !gl.get_program_link_status(program) {
                return Err(gl.get_program_info_log(program));
            }
            for shader in shaders {
                gl.detach_shader(program, shader);
                gl.delete_shader(shader);
            }
            Ok(Self { program, vertices: gl.create_vertex_array()? })
        }
    }

    fn draw(self, gl: &glow::Context, planes: &FrameTextures, params: DrawParams) {
        // SAFETY: the context is current while egui paints. The program, textures and vertex array
        // are alive: only `release` and `draw` delete textures. egui restores its own state after a
        // callback.
        unsafe {
            gl.use_program(Some(self.program));
            gl.bind_vertex_array(Some(self.vertices));
            for (unit, (texture, name)) in
                (0_u32..).zip(planes.textures.iter().zip(["y", "u", "v"]))
            {
                gl.active_texture(glow::TEXTURE0 + unit);
                gl.bind_texture(glow::TEXTURE_2D, Some(*texture));
                let location = gl.get_uniform_location(self.program, name);
                gl.uniform_1_i32(location.as_ref(), unit as i32);
            }
            let location = gl.get_uniform_location(self.program, "params");
            let VideoStyle { brightness, mirrored } = params.style;
            gl.uniform_4_f32(
                location.as_ref(),
                params.width,
                params.height,
                params.radius,
                brightness,
            );
            let location = gl.get_uniform_location(self.program, "mirrored");
            gl.uniform_1_f32(location.as_ref(), f32::from(u8::from(mirrored)));
            gl.draw_arrays(glow::TRIANGLES, 0, 3);
            gl.active_texture(glow::TEXTURE0);
        }
    }
}

impl FrameTextures {
    fn new(gl: &glow::Context, size: Size) -> Option<Self> {
        let half = Size { width: size.width / 2, height: size.height / 2 };
        // SAFETY: the context is current while egui paints. No memory of this process is passed.
        let made = unsafe {
            let plane = |size: Size| -> Result<glow::Texture, String> {
                let texture = gl.create_texture()?;
                gl.bind_texture(glow::TEXTURE_2D, Some(texture));
                for (parameter, value) in [
                    (glow::TEXTURE_MIN_FILTER, glow::LINEAR),
                    (glow::TEXTURE_MAG_FILTER, glow::LINEAR),
                    (glow::TEXTURE_WRAP_S, glow::CLAMP_TO_EDGE),
                    (glow::TEXTURE_WRAP_T, glow::CLAMP_TO_EDGE),
                ] {
                    gl.tex_parameter_i32(glow::TEXTURE_2D, parameter, value as i32);
                }
                let (width, height) = (size.width as i32, size.height as i32);
                let (inside, outside) = (glow::R8 as i32, glow::RED);
                let none = glow::PixelUnpackData::Slice(None);
                let bytes = glow::UNSIGNED_BYTE;
                gl.tex_image_2d(
                    glow::TEXTURE_2D,
                    0,
                    inside,
                    width,
                    height,
                    0,
                    outside,
                    bytes,
                    none,
                );
                Ok(texture)
            };
            plane(size).and_then(|y| Ok([y, plane(half)?, plane(half)?]))
        };
        match made {
            Ok(textures) => Some(Self { textures, size, frame_number: 0 }),
            Err(error) => {
                tracing::error!(%error, %size, "no textures for a video frame");
                None
            }
        }
    }

    fn upload(&self, gl: &glow::Context, frame: &VideoFrame) {
        let half = Size { width: frame.size.width / 2, height: frame.size.height / 2 };
        let planes = [(frame.y(), frame.size), (frame.u(), half), (frame.v(), half)];
        // SAFETY: the context is current while egui paints; each slice has width × height bytes,
        // which is what the driver reads at an alignment of one byte.
        unsafe {
            gl.pixel_store_i32(glow::UNPACK_ALIGNMENT, 1);
            for (texture, (bytes, size)) in self.textures.iter().zip(planes) {
                gl.bind_texture(glow::TEXTURE_2D, Some(*texture));
                let (width, height) = (size.width as i32, size.height as i32);
                let bytes = glow::PixelUnpackData::Slice(Some(bytes));
                gl.tex_sub_image_2d(
                    glow::TEXTURE_2D,
                    0,
                    0,
                    0,
                    width,
                    height,
                    glow::RED,
                    glow::UNSIGNED_BYTE,
                    bytes,
                );
            }
        }
    }

    fn delete(self, gl: &glow::Context) {
        // SAFETY: the context is current while egui paints. These textures are not used any more.
        unsafe {
            for texture in self.textures {
                gl.delete_texture(texture);
            }
        }
    }
}

/// The textures of one source without a window, so that a benchmark can measure uploads.
pub struct TextureUpload(FrameTextures);

impl std::fmt::Debug for TextureUpload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Upload")
    }
}

impl TextureUpload {
    /// Creates textures for frames of that size, in pixels. `None` if the graphics card has no
    /// memory for them.
    ///
    /// # Safety
    /// The context must be current on this thread.
    pub unsafe fn new(gl: &glow::Context, size: Size) -> Option<Self> {
        FrameTextures::new(gl, size).map(Self)
    }

    /// Uploads a frame as the window does, and waits until the card has received it.
    ///
    /// # Panics
    /// If the frame has another size than the textures.
    ///
    /// # Safety
    /// The context that the textures are of must be current on this thread.
    pub unsafe fn upload(&self, gl: &glow::Context, frame: &VideoFrame) {
        assert_eq!(self.0.size, frame.size, "the frame has the size of the textures");
        self.0.upload(gl, frame);
        // SAFETY: the context is current, as the caller promises.
        unsafe { gl.finish() };
    }
}

/// The CPU time of this thread, if TRACE logging is enabled.
fn thread_time() -> Option<Duration> {
    if !tracing::enabled!(tracing::Level::TRACE) {
        return None;
    }
    ThreadTime::try_now().ok().map(|time| time.as_duration())
}

/// One triangle over the whole viewport, which egui has set to the frame's rectangle.
const VERTEX: &str = "\
uniform float mirrored;
out vec2 coordinate;
void main() {
    vec2 p = vec2(float((gl_VertexID << 1) & 2), float(gl_VertexID & 2));
    coordinate = vec2(mix(p.x, 1.0 - p.x, mirrored), 1.0 - p.y);
    gl_Position = vec4(p * 2.0 - 1.0, 0.0, 1.0);
}";

/// BT.709 limited range to RGB, in gamma space as egui blends, with rounded corners. Alpha is
/// premultiplied, as egui's blending requires.
const FRAGMENT: &str = "\
precision mediump float;
uniform sampler2D y, u, v;
uniform vec4 params;
in vec2 coordinate;
out vec4 colour;
void main() {
    float luma = 1.1643 * (texture(y, coordinate).r - 0.0625);
    float cb = texture(u, coordinate).r - 0.5;
    float cr = texture(v, coordinate).r - 0.5;
    vec3 rgb = vec3(luma + 1.7927 * cr, luma - 0.2132 * cb - 0.5329 * cr, luma + 2.1124 * cb);
    vec2 beyond = abs(coordinate - 0.5) * params.xy - 0.5 * params.xy + params.z;
    float outside = length(max(beyond, 0.0)) - params.z;
    float alpha = clamp(0.5 - outside, 0.0, 1.0);
    colour = vec4(clamp(rgb, 0.0, 1.0) * params.w * alpha, alpha);
}";
