//! The reply frame of a data-plane session.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    daitn_fuzz::message::<daitn_messages::session::SessionReply>(bytes);
});
