//! The node's first message.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    daitn_fuzz::message::<daitn_messages::control::Hello>(bytes);
});
