//! A terminal's file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = daitn_terminals::TerminalOptions::from_toml(text, std::path::Path::new("."));
    }
});
