//! The target `server_properties`.
#![cfg_attr(fuzzing, no_main)]

milena_fuzz::program!(server_properties);
