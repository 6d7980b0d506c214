//! The display on which the window opens: how it is found, its scale, and what to try if it fails.

/// The display on which the window opens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Display {
    /// Identifies it among the displays of this user.
    pub(super) name: String,
    /// The environment to restart with if no window can be opened on it.
    pub(super) fallback: Option<EnvChanges>,
}

/// Changes of environment variables: a new value, or `None` to remove the variable.
pub(super) type EnvChanges = Vec<(&'static str, Option<&'static str>)>;

#[cfg(target_os = "linux")]
pub(super) use linux::{find, restart_with};
#[cfg(not(target_os = "linux"))]
pub(super) use other_platforms::{find, restart_with};

/// Other systems have one display, and its scale is known.
#[cfg(not(target_os = "linux"))]
mod other_platforms {
    use super::{Display, EnvChanges};

    /// The display on which the window opens.
    ///
    /// # Errors
    /// Never fails.
    pub(in crate::ui) fn find() -> anyhow::Result<Display> {
        Ok(Display { name: "screen".to_owned(), fallback: None })
    }

    /// Restarts the program with another environment. Never needed here.
    pub(in crate::ui) fn restart_with(_: &EnvChanges) -> std::io::Error {
        std::io::ErrorKind::Unsupported.into()
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        env,
        io::{self, Read as _, Write as _},
        os::unix::{net::UnixStream, process::CommandExt as _},
        path::{Path, PathBuf},
        process::Command,
        time::Duration,
    };

    use x11rb::{
        connection::Connection as _, protocol::xproto::ConnectionExt as _, resource_manager,
        rust_connection::RustConnection,
    };

    use super::{Display, EnvChanges};

    /// How long a Wayland compositor may take to answer. It usually takes less than a millisecond.
    const COMPOSITOR_TIMEOUT: Duration = Duration::from_secs(5);

    /// The scales of real screens, from a projector's to the largest for low vision. A scale
    /// outside is a mistake: winit would panic, or the window would fit on no screen.
    const VALID_SCALES: std::ops::RangeInclusive<f64> = 0.25..=10.0;

    /// The variable that names a Wayland compositor.
    const WAYLAND_DISPLAY: &str = "WAYLAND_DISPLAY";

    /// The variable with an inherited connection to a compositor.
    const WAYLAND_SOCKET: &str = "WAYLAND_SOCKET";

    /// The variable that names an X server.
    const DISPLAY: &str = "DISPLAY";

    /// The variable whose value winit takes as the scale of X11 screens, instead of asking the
    /// server.
    const X11_SCALE_FACTOR: &str = "WINIT_X11_SCALE_FACTOR";

    /// The display variables of the environment. Empty values count as unset.
    #[derive(Clone, Default, Debug)]
    struct DisplayEnv {
        wayland: Option<String>,
        wayland_socket: Option<String>,
        x11: Option<String>,
        scale: Option<String>,
        runtime_folder: Option<PathBuf>,
    }

    /// What to do in an environment.
    #[derive(PartialEq, Debug)]
    enum StartPlan {
        /// Open the window on this display.
        Open(Display),
        /// Restart with these changes.
        Restart(EnvChanges),
        /// This compositor does not answer, and there is no other display.
        Unresponsive(String),
    }

    /// Finds the display for the window and checks that it answers. Restarts the program if the
    /// environment must change, so it must be called before anything else is started.
    ///
    /// # Errors
    /// If no display answers. The error says what to do.
    pub(in crate::ui) fn find() -> anyhow::Result<Display> {
        let env = DisplayEnv::from_env();
        let answers = |socket: &Path| answers(socket, COMPOSITOR_TIMEOUT);
        match env.plan(answers, dpi) {
            StartPlan::Open(display) => Ok(display),
            StartPlan::Restart(changes) => {
                let error = restart_with(&changes);
                anyhow::bail!(
                    "cannot open a window in this environment, and the program cannot restart \
                     itself ({error}); {}",
                    describe(&changes)
                )
            }
            StartPlan::Unresponsive(socket) => anyhow::bail!(
                "cannot open a window: the Wayland display {socket} does not answer, and \
                 DISPLAY names no other; start the program from a desktop's menu or terminal, and \
                 `quintet --help` lists what works without a window"
            ),
        }
    }

    /// Restarts the program in the same process, with another environment. Returns only if that
    /// failed.
    pub(in crate::ui) fn restart_with(changes: &EnvChanges) -> io::Error {
        let program = match env::current_exe() {
            Ok(program) => program,
            Err(error) => return error,
        };
        let mut command = Command::new(program);
        command.args(env::args_os().skip(1));
        for (name, value) in changes {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.exec()
    }

    /// The same changes as instructions for the user.
    fn describe(changes: &EnvChanges) -> String {
        let words: Vec<_> = changes
            .iter()
            .map(|(name, value)| match value {
                Some(value) => format!("set {name}={value}"),
                None => format!("unset {name}"),
            })
            .collect();
        words.join(", ")
    }

    impl DisplayEnv {
        fn from_env() -> Self {
            let of = |name| env::var(name).ok().filter(|value| !value.is_empty());
            let folder = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
            Self {
                wayland: of(WAYLAND_DISPLAY),
                wayland_socket: of(WAYLAND_SOCKET),
                x11: of(DISPLAY),
                scale: of(X11_SCALE_FACTOR),
                runtime_folder: folder.filter(|folder| folder.is_absolute()),
            }
        }

        /// winit uses Wayland whenever the environment names it, without a fallback, and it accepts
        /// any scale.
        fn plan(
            &self,
            answers: impl Fn(&Path) -> bool,
            dpi: impl Fn() -> Option<f64>,
        ) -> StartPlan {
            let without_wayland = || vec![(WAYLAND_DISPLAY, None), (WAYLAND_SOCKET, None)];
            let fallback = self.x11.is_some().then(without_wayland);
            if let (Some(socket), None) = (&self.wayland_socket, &self.wayland) {
                return StartPlan::Open(Display { name: format!("wayland {socket}"), fallback });
            }
            if let Some(wayland) = &self.wayland {
                let socket = self.socket(wayland);
                let name =
                    socket.as_ref().map_or_else(|| wayland.clone(), |s| s.display().to_string());
                // An inherited connection cannot be tried without using it up.
                if self.wayland_socket.is_some() || socket.is_some_and(|socket| answers(&socket)) {
                    return StartPlan::Open(Display { name: format!("wayland {name}"), fallback });
                }
                return fallback.map_or(StartPlan::Unresponsive(name), StartPlan::Restart);
            }
            let Some(x11) = &self.x11 else {
                return StartPlan::Open(Display { name: String::new(), fallback: None });
            };
            if is_unusable_scale(self.scale.as_deref(), dpi) {
                return StartPlan::Restart(vec![(X11_SCALE_FACTOR, Some("1"))]);
            }
            StartPlan::Open(Display { name: format!("x11 {}", x11_server(x11)), fallback: None })
        }

        /// The path of a compositor's socket.
        fn socket(&self, wayland: &str) -> Option<PathBuf> {
            let path = Path::new(wayland);
            if path.is_absolute() {
                return Some(path.to_path_buf());
            }
            self.runtime_folder.as_ref().map(|folder| folder.join(path))
        }
    }

    /// Whether a compositor listens on a socket and answers. A crashed compositor leaves its socket
    /// or its variable behind, and a compositor that hangs would hang the window.
    fn answers(socket: &Path, timeout: Duration) -> bool {
        let ask = || {
            let mut stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            // To object 1, `wl_display`: request 0, `sync`. The answer arrives on object 2
            // (wayland.xml).
            let sync = [1_u32, 12 << 16, 2].map(u32::to_ne_bytes).concat();
            stream.write_all(&sync)?;
            stream.read_exact(&mut [0; 8])
        };
        ask().is_ok()
    }

    /// Whether the scale that winit would take for X11 is outside [`VALID_SCALES`]. It comes from
    /// the variable if that is set, else from the configured resolution in dots per inch.
    fn is_unusable_scale(variable: Option<&str>, dpi: impl Fn() -> Option<f64>) -> bool {
        let scale = match variable {
            Some(text) if text.eq_ignore_ascii_case("randr") => return false,
            Some(text) => text.parse().unwrap_or(f64::NAN),
            // Without a resolution winit computes the scale from the screen's size in millimetres,
            // and checks it.
            None => dpi().map_or(1.0, |dpi| dpi / 96.0),
        };
        !VALID_SCALES.contains(&scale)
    }

    /// The X server of a display name, without the screen: `:0` of `:0.0`.
    fn x11_server(display: &str) -> &str {
        match display.rsplit_once('.') {
            Some((server, screen))
                if server.contains(':') && screen.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                server
            }
            Some(_) | None => display,
        }
    }

    /// The configured resolution of the X server, read from the same places as winit does: the
    /// desktop's settings, then the resources.
    fn dpi() -> Option<f64> {
        // winit reports a server that cannot be reached.
        let (server, screen) = x11rb::connect(None).ok()?;
        desktop_dpi(&server, screen).or_else(|| {
            let resources = resource_manager::new_from_default(&server).ok()?;
            resources.get_string("Xft.dpi", "")?.parse().ok()
        })
    }

    fn desktop_dpi(server: &RustConnection, screen: usize) -> Option<f64> {
        let atom =
            |name: &str| Some(server.intern_atom(false, name.as_bytes()).ok()?.reply().ok()?.atom);
        let selection = atom(&format!("_XSETTINGS_S{screen}"))?;
        let owner = server.get_selection_owner(selection).ok()?.reply().ok()?.owner;
        if owner == x11rb::NONE {
            return None;
        }
        let property = atom("_XSETTINGS_SETTINGS")?;
        let max_length = server.setup().maximum_request_length.into();
        let request = server.get_property(false, owner, property, property, 0, max_length).ok()?;
        dpi_of(&request.reply().ok()?.value)
    }

    /// `Xft/DPI` of a desktop's settings (the XSETTINGS specification), if present. It is stored as
    /// 1024 times the dots per inch.
    fn dpi_of(settings: &[u8]) -> Option<f64> {
        /// Types of settings.
        const INTEGER: u8 = 0;
        const TEXT: u8 = 1;
        const COLOUR: u8 = 2;

        let is_little = match settings.first()? {
            0 => true,
            1 => false,
            _ => return None,
        };
        let number = |at: usize| {
            let bytes: [u8; 4] = settings.get(at..at + 4)?.try_into().ok()?;
            Some(if is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
        };
        let short = |at: usize| {
            let bytes: [u8; 2] = settings.get(at..at + 2)?.try_into().ok()?;
            Some(usize::from(if is_little {
                u16::from_le_bytes(bytes)
            } else {
                u16::from_be_bytes(bytes)
            }))
        };
        // Header: byte order (1 byte), padding (3), serial number (4), count (4). Then per setting:
        // type (1), padding (1), name, serial number (4), value.
        let (count, mut at) = (number(8)?, 12);
        for _ in 0..count {
            let (kind, length) = (*settings.get(at)?, short(at + 2)?);
            let name = settings.get(at + 4..at + 4 + length)?;
            at += 4 + length.next_multiple_of(4) + 4;
            match kind {
                INTEGER if name == b"Xft/DPI" => {
                    return Some(f64::from(number(at)?.cast_signed()) / 1024.0);
                }
                INTEGER => at += 4,
                TEXT => at += 4 + usize::try_from(number(at)?).ok()?.next_multiple_of(4),
                COLOUR => at += 8,
                _ => return None,
            }
        }
        None
    }

    #[cfg(test)]
    mod tests {
        use std::{os::unix::net::UnixListener, thread};

        use super::*;

        fn env(wayland: Option<&str>, x11: Option<&str>) -> DisplayEnv {
            DisplayEnv {
                wayland: wayland.map(str::to_owned),
                x11: x11.map(str::to_owned),
                runtime_folder: Some("/run/user/7".into()),
                ..DisplayEnv::default()
            }
        }

        fn plan(env: &DisplayEnv, answers: bool, dpi: Option<f64>) -> StartPlan {
            env.plan(|_| answers, || dpi)
        }

        fn open(name: &str, fallback: Option<EnvChanges>) -> StartPlan {
            StartPlan::Open(Display { name: name.to_owned(), fallback })
        }

        #[test]
        fn wayland_is_used_if_it_answers_and_x11_otherwise() {
            let restart = || vec![(WAYLAND_DISPLAY, None), (WAYLAND_SOCKET, None)];
            let both = env(Some("wayland-0"), Some(":0"));
            let name = "wayland /run/user/7/wayland-0";
            assert_eq!(plan(&both, true, None), open(name, Some(restart())));
            assert_eq!(plan(&both, false, None), StartPlan::Restart(restart()));
            let alone = env(Some("wayland-0"), None);
            assert_eq!(plan(&alone, true, None), open(name, None));
            let silent = StartPlan::Unresponsive("/run/user/7/wayland-0".to_owned());
            assert_eq!(plan(&alone, false, None), silent);
            assert_eq!(plan(&env(None, Some(":0.0")), false, None), open("x11 :0", None));
            assert_eq!(plan(&env(None, None), false, None), open("", None));
            let no_folder = DisplayEnv { runtime_folder: None, ..both };
            assert_eq!(plan(&no_folder, true, None), StartPlan::Restart(restart()));
        }

        #[test]
        fn an_invalid_scale_restarts_with_a_scale_of_one() {
            let x11 = env(None, Some(":0"));
            let restart = || StartPlan::Restart(vec![(X11_SCALE_FACTOR, Some("1"))]);
            for dpi in [0.0, -96.0, -1.0 / 1024.0, f64::NAN, f64::INFINITY, 1e6, 1.0] {
                assert_eq!(plan(&x11, false, Some(dpi)), restart(), "{dpi}");
            }
            for dpi in [72.0, 96.0, 144.0, 384.0] {
                assert_eq!(plan(&x11, false, Some(dpi)), open("x11 :0", None), "{dpi}");
            }
            for (scale, is_right) in [
                ("1.5", true),
                ("randr", true),
                ("Randr", true),
                ("0", false),
                ("large", false),
                ("inf", false),
            ] {
                let env = DisplayEnv { scale: Some(scale.to_owned()), ..x11.clone() };
                let wanted = if is_right { open("x11 :0", None) } else { restart() };
                assert_eq!(plan(&env, false, Some(0.0)), wanted, "{scale}");
            }
        }

        #[test]
        fn a_compositor_answers_or_it_is_not_there() {
            let folder = env::temp_dir().join(format!("quintet-wayland-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let socket = folder.join("wayland-0");
            let short = Duration::from_millis(100);
            assert!(!answers(&socket, short), "no socket");
            let listener = UnixListener::bind(&socket).unwrap();
            assert!(!answers(&socket, short), "one that hangs");
            thread::scope(|scope| {
                scope.spawn(|| {
                    // The connection that timed out, and the next one.
                    for mut stream in listener.incoming().take(2).map(Result::unwrap) {
                        let mut request = [0; 12];
                        stream.read_exact(&mut request).unwrap();
                        let done = [2_u32, 12 << 16, 0].map(u32::to_ne_bytes).concat();
                        let _ = stream.write_all(&done);
                    }
                });
                assert!(answers(&socket, Duration::from_secs(60)));
            });
            drop(listener);
            assert!(!answers(&socket, short), "a crashed compositor leaves its socket");
            std::fs::remove_dir_all(folder).unwrap();
        }

        #[test]
        fn the_resolution_is_read_from_the_desktop_settings() {
            let setting = |kind: u8, name: &[u8], value: &[u8]| {
                let mut bytes = vec![kind, 0];
                bytes.extend((name.len() as u16).to_le_bytes());
                bytes.extend(name);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
                bytes.extend([0; 4]);
                bytes.extend(value);
                bytes
            };
            let settings = |all: &[Vec<u8>]| {
                let head = [0, 0, 0, 0, 9, 0, 0, 0, all.len() as u8, 0, 0, 0];
                [&head[..], &all.concat()].concat()
            };
            let theme =
                setting(1, b"Net/ThemeName", &[5, 0, 0, 0, b'A', b'd', b'w', b'a', b'i', 0, 0, 0]);
            let colour = setting(2, b"Gtk/Tint", &[0; 8]);
            let dpi = |dpi: i32| setting(0, b"Xft/DPI", &dpi.to_le_bytes());
            let all = |value| settings(&[theme.clone(), colour.clone(), dpi(value)]);
            assert_eq!(dpi_of(&all(120 * 1024)), Some(120.0));
            assert_eq!(dpi_of(&all(-1)), Some(-1.0 / 1024.0));
            assert_eq!(dpi_of(&settings(std::slice::from_ref(&theme))), None);
            for length in 0..all(1).len() {
                assert_eq!(dpi_of(&all(1)[..length]), None, "cut off at {length}");
            }
            assert_eq!(dpi_of(&[0xff; 64]), None);
        }
    }
}
