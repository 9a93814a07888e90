//! `milena_fuzz::log_ops` under the fuzzer; an ordinary build replays the files that are given.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| milena_fuzz::log_ops::run(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    milena_fuzz::replay(milena_fuzz::log_ops::run)
}
