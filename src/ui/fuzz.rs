//! Settings, made up by a fuzzer (`tests/fuzz`).

use super::{
    settings::Settings,
    settings_file::{merge, parse},
};

/// Reads settings, keeps them as they are, and writes them into the file that they came from.
pub fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok((settings, _)) = parse(&text) {
        let _ = (settings.hub(), settings.engine());
        let kept = merge("", &Settings::default(), &settings).expect("settings can be written");
        let (again, wrong) = parse(&kept).expect("and read again");
        assert_eq!((again, wrong), (settings.clone(), vec![]));
        let merged =
            merge(&text, &Settings::default(), &settings).expect("into their file as well");
        assert_eq!(parse(&merged).expect("which stays one").0, settings);
    }
}
