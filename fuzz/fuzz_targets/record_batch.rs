//! The target `record_batch`.
#![cfg_attr(fuzzing, no_main)]

milena_fuzz::program!(record_batch);
