//! The target `canary`.
#![cfg_attr(fuzzing, no_main)]

milena_fuzz::program!(canary);
