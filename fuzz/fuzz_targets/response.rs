//! The target `response`.
#![cfg_attr(fuzzing, no_main)]

milena_fuzz::program!(response);
