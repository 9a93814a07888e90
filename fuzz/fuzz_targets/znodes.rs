//! The target `znodes`.
#![cfg_attr(fuzzing, no_main)]

milena_fuzz::program!(znodes);
