//! The target `decompress_gzip`.
#![cfg_attr(fuzzing, no_main)]

milena_fuzz::program!(decompress_gzip);
