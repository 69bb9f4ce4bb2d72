//! A Parquet table.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    daitn_fuzz::with_file(bytes, "parquet", |path| {
        let _ = daitn_engine::data::inspect(path);
        let _ = daitn_engine::data::read(path, &daitn_fuzz::spec());
    });
});
