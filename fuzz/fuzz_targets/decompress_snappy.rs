//! The target `decompress_snappy`.
#![cfg_attr(fuzzing, no_main)]

milena_fuzz::program!(decompress_snappy);
