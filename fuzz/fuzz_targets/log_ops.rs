//! The target `log_ops`.
#![cfg_attr(fuzzing, no_main)]

milena_fuzz::program!(log_ops);
