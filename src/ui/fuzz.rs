//! Settings, made up by a fuzzer (`tests/fuzz`).

use super::settings::Settings;

/// Reads settings, and keeps them as they are.
pub fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(settings) = toml::from_str::<Settings>(&text) {
        let _ = (settings.hub(), settings.engine());
        let kept = toml::to_string(&settings).expect("settings can be written");
        let again: Settings = toml::from_str(&kept).expect("and read again");
        assert_eq!(toml::to_string(&again).expect("settings can be written"), kept);
    }
}
