//! The target `decompress_lz4`.
#![cfg_attr(fuzzing, no_main)]

milena_fuzz::program!(decompress_lz4);
