//! Says loudly what would otherwise be lost silently: OpenH264 without `nasm` runs at half speed.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=PATH");
    let x86 = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch.starts_with("x86"));
    let assembler = std::process::Command::new("nasm").arg("-v").output();
    if x86 && !assembler.is_ok_and(|said| said.status.success()) {
        println!(
            "cargo:warning=`nasm` is not on PATH, or does not run: the video encoder was built without SIMD and \
             needs more than twice the CPU. Install nasm, run `cargo clean -p openh264-sys2` and \
             build again."
        );
    }
}
