//! Warns if OpenH264 is built without SIMD because `nasm` is missing: it then runs at half speed.

use std::{env, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is_x86 = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch.starts_with("x86"));
    let has_nasm = Command::new("nasm").arg("-v").output().is_ok_and(|nasm| nasm.status.success());
    let encodes = env::var_os("CARGO_FEATURE_MEDIA").is_some();
    if !encodes || !is_x86 || has_nasm {
        // PATH is not watched here: a change of it alone needs no new build.
        return;
    }
    println!("cargo:rerun-if-env-changed=PATH");
    for folder in env::split_paths(&env::var_os("PATH").unwrap_or_default()) {
        if folder.is_dir() {
            // Installing `nasm` changes one of these folders.
            println!("cargo:rerun-if-changed={}", folder.display());
        }
    }
    println!(
        "cargo:warning=`nasm` is not on PATH, or does not run: the video encoder was built without \
         SIMD and needs more than twice the CPU. Install nasm, run `cargo clean -p openh264-sys2` \
         and build again."
    );
}
