//! A descriptor: what decodes is validated too.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    daitn_fuzz::message::<daitn_messages::descriptor::Descriptor>(bytes);
    if let Ok(descriptor) = daitn_messages::encoding::decode::<daitn_messages::descriptor::Descriptor>(bytes) {
        let _ = descriptor.validate();
        let _ = daitn_messages::croissant::croissant(&descriptor);
    }
});
