//! The target `recovery`.
#![cfg_attr(fuzzing, no_main)]

milena_fuzz::program!(recovery);
