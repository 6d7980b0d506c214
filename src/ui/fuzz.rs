//! The fuzz target for settings files (`tests/fuzz`).

use super::{
    settings::Settings,
    settings_file::{merge, parse},
};

/// Parses settings, writes them to a new file, and merges them into the file that they came from.
pub fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok((settings, _)) = parse(&text) {
        let _ = (settings.hub_choice(), settings.engine_options());
        let kept =
            merge("", &Settings::default(), &settings).expect("valid settings can be written");
        let (again, invalid) = parse(&kept).expect("written settings can be parsed");
        assert_eq!((again, invalid), (settings.clone(), vec![]));
        let merged = merge(&text, &Settings::default(), &settings)
            .expect("settings can be merged into their own file");
        assert_eq!(parse(&merged).expect("a merged file can be parsed").0, settings);
    }
}
