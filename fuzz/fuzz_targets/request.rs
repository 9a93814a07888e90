//! The target `request`.
#![cfg_attr(fuzzing, no_main)]

milena_fuzz::program!(request);
