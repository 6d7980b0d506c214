//! Compares screenshots of the window, in both themes, with the images in `tests/window`.

use super::{
    raster::{Canvas, Textures},
    *,
};

/// How much a colour channel of a pixel may differ: rounding differs between machines.
const TOLERANCE: u8 = 16;

/// How many pixels may differ by more than that. The smallest icon has more pixels.
const MAX_DIFFERENT_PIXELS: usize = 40;

/// Draws the window and compares it with the image of that name.
fn assert_image(name: &str, window: &Harness<'_, Option<App>>, textures: &Textures) {
    let output = window.output();
    let shapes = window.ctx.tessellate(output.shapes.clone(), output.pixels_per_point);
    let size = window.ctx.content_rect().size();
    let canvas = Canvas::draw((size.x as usize, size.y as usize), &shapes, textures);
    let bytes = canvas.bytes();
    assert_matches_file(&format!("{name}.png"), &png_of(&canvas), |kept| {
        let (width, kept) = pixels_of(kept)?;
        if (width, kept.len()) != (canvas.width, bytes.len()) {
            return Err("the image has another size".to_owned());
        }
        let is_far = |(one, other): (&[u8], &[u8])| {
            one.iter().zip(other).any(|(one, other)| one.abs_diff(*other) > TOLERANCE)
        };
        let far = kept.chunks(3).zip(bytes.chunks(3)).map(is_far);
        let strays: Vec<_> =
            far.enumerate().filter(|(_, far)| *far).map(|(index, _)| index).collect();
        match strays.first() {
            Some(first) if strays.len() > MAX_DIFFERENT_PIXELS => Err(format!(
                "{} pixels differ, the first at {}, {}",
                strays.len(),
                first % width,
                first / width
            )),
            Some(_) | None => Ok(()),
        }
    });
}

fn png_of(canvas: &Canvas) -> Vec<u8> {
    let mut file = vec![];
    let mut encoder = png::Encoder::new(&mut file, canvas.width as u32, canvas.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&canvas.bytes()).unwrap();
    writer.finish().unwrap();
    file
}

fn pixels_of(file: &[u8]) -> Result<(usize, Vec<u8>), String> {
    let decoder = png::Decoder::new(std::io::Cursor::new(file));
    let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
    let size = reader.output_buffer_size().ok_or("the image is too large")?;
    let mut pixels = vec![0; size];
    let info = reader.next_frame(&mut pixels).map_err(|error| error.to_string())?;
    Ok((info.width as usize, pixels))
}

/// A window whose textures are kept for the software rasterizer.
fn rendered_window(
    size: [f32; 2],
    theme: ThemeChoice,
    snapshot: Snapshot,
) -> (Harness<'static, Option<App>>, Textures) {
    let textures = Textures::default();
    let settings = Settings { theme, ..Settings::default() };
    let builder = Harness::builder().with_size(size).renderer(textures.clone());
    (window_of(builder, settings, snapshot), textures)
}

#[test]
fn five_sessions_match_their_images_in_both_themes_and_sizes() {
    for (theme, name) in [(ThemeChoice::Dark, "dark"), (ThemeChoice::Light, "light")] {
        for (size, width) in [(LARGE, "1280"), (SMALL, "800")] {
            let (mut window, textures) = rendered_window(size, theme, five_sessions());
            // One participant speaks for longer than the test draws.
            app(&mut window).feeds.set_level(
                TrackRef::Peer(PeerId(2), Source::Microphone),
                -20.0,
                60.0,
            );
            window.run();
            assert_image(&format!("{name}-{width}"), &window, &textures);
        }
    }
}

#[test]
fn a_focused_control_in_a_dialog_matches_its_image_in_both_themes() {
    for (theme, name) in [(ThemeChoice::Dark, "dark"), (ThemeChoice::Light, "light")] {
        let (mut window, textures) = rendered_window(SMALL, theme, five_sessions());
        window.get_by_label("Settings").click();
        window.run();
        window.get_by_label("M: Microphone on or off, everywhere").focus();
        window.run();
        assert_image(&format!("{name}-settings"), &window, &textures);
    }
}
