//! The target `group_records`.
#![cfg_attr(fuzzing, no_main)]

milena_fuzz::program!(group_records);
