//! Tells the program which compiler made it, since instruction counts of two compilers do not compare.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = std::env::var_os("RUSTC").expect("cargo names the compiler");
    let output = Command::new(rustc).arg("-V").output().expect("the compiler runs");
    let version = String::from_utf8(output.stdout).expect("it speaks UTF-8");
    let target = std::env::var("TARGET").expect("cargo names the target");
    println!("cargo::rustc-env=MILENA_COMPILER={} for {target}", version.trim());
}
