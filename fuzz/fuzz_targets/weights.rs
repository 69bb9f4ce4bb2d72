//! A weights file.
#![no_main]

use daitn_engine::Engine;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let layout = daitn_engine::builtin::Builtin.layout(&daitn_fuzz::spec()).expect("a sound model");
    let _ = daitn_engine::weights::read(bytes, &layout);
});
