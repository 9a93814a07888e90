//! `milena_fuzz::response` under the fuzzer; an ordinary build replays the files that are given.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| milena_fuzz::response::run(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    milena_fuzz::replay(milena_fuzz::response::run)
}
