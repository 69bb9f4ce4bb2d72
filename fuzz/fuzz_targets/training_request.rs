//! A training request as JSON, with its validation.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = serde_json::from_slice::<daitn_messages::request::TrainingRequest>(bytes) {
        let _ = request.validate();
    }
});
