//! Measures the upload of a video frame to the first graphics card that EGL finds: `cargo bench
//! --bench window`. On other systems than Linux, or without a card, it prints a message instead.

fn main() {
    #[cfg(target_os = "linux")]
    divan::main();
    #[cfg(not(target_os = "linux"))]
    println!("a graphics context without a window is made on Linux only");
}

#[cfg(target_os = "linux")]
mod upload {
    #![expect(unsafe_code, reason = "OpenGL is called through pointers")]

    use std::error::Error;

    use divan::{Bencher, black_box};
    use eframe::glow;
    use glutin::{
        api::egl::{context::PossiblyCurrentContext, device::Device, display::Display},
        config::{ConfigSurfaceTypes, ConfigTemplateBuilder},
        context::{ContextApi, ContextAttributesBuilder},
        display::GlDisplay as _,
    };
    use quintet::{
        capture::NoisePattern,
        model::{MediaTime, Size},
        ui::TextureUpload,
    };

    /// A tile's size, and a camera's.
    #[divan::bench(args = [Size::new(640, 360), Size::new(1280, 720)], max_time = 2)]
    fn upload(bencher: Bencher<'_, '_>, size: Size) {
        let (_context, gl) = match context() {
            Ok(context) => context,
            Err(error) => return println!("no graphics context: {error}"),
        };
        let frame = NoisePattern::new(size, 30, "bench").paint(MediaTime::default());
        // SAFETY: the context is current on this thread until the end, and the textures are its.
        unsafe {
            let textures = TextureUpload::new(&gl, size).expect("memory for a frame");
            bencher.bench_local(|| textures.upload(&gl, black_box(&frame)));
        }
    }

    /// Returns an OpenGL context without a surface, current on this thread.
    fn context() -> Result<(PossiblyCurrentContext, glow::Context), Box<dyn Error>> {
        let device = Device::query_devices()?.next().ok_or("EGL knows no device")?;
        let config = ConfigTemplateBuilder::new().with_surface_type(ConfigSurfaceTypes::empty());
        let attributes = ContextAttributesBuilder::new().with_context_api(ContextApi::Gles(None));
        // SAFETY: no window handle is passed; the functions are loaded while the context is
        // current.
        unsafe {
            let display = Display::with_device(&device, None)?;
            let config = display.find_configs(config.build())?.next().ok_or("no configuration")?;
            let context = display.create_context(&config, &attributes.build(None))?;
            let context = context.make_current_surfaceless()?;
            let gl = glow::Context::from_loader_function_cstr(|name| {
                display.get_proc_address(name).cast()
            });
            Ok((context, gl))
        }
    }
}
