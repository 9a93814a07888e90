//! The target `consumer_protocol`.
#![cfg_attr(fuzzing, no_main)]

milena_fuzz::program!(consumer_protocol);
