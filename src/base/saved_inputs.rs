//! The saved inputs of the fuzz targets in `tests/fuzz`, for tests.

use std::{fs, path::Path};

/// A fuzz target: it takes the fuzzer's bytes.
pub type Target = fn(&[u8]);

/// Runs the saved inputs of fuzz targets, each given with the name of its folder.
///
/// # Panics
/// Panics if a target does, or has no saved input.
pub fn run(targets: &[(&str, Target)]) {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/cases");
    for (target, run) in targets {
        let inputs: Vec<_> = fs::read_dir(all.join(target)).expect("a folder of inputs").collect();
        assert!(!inputs.is_empty(), "{target} has no saved input");
        for input in inputs {
            let path = input.expect("an input").path();
            eprintln!("{}", path.display());
            run(&fs::read(path).expect("a readable input"));
        }
    }
}
