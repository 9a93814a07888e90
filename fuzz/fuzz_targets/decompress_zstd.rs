//! The target `decompress_zstd`.
#![cfg_attr(fuzzing, no_main)]

milena_fuzz::program!(decompress_zstd);
