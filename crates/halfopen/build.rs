//! Builds the catalogue into the executable: every `experiments/*.toml`, by its file's stem.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

fn main() {
    // Read when it runs: a build script in a shared target directory may come from another clone.
    let package = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let directory = Path::new(&package).join("../../experiments");
    println!("cargo::rerun-if-changed={}", directory.display());
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("reading {}: {error}", directory.display()))
        .map(|entry| entry.expect("reading a directory entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort_by_cached_key(|path| natural(path));
    let mut code = String::from("&[\n");
    for file in files {
        println!("cargo::rerun-if-changed={}", file.display());
        let stem =
            file.file_stem().and_then(|stem| stem.to_str()).expect("experiments have plain names");
        let path = file.canonicalize().expect("the file exists");
        let path = path.to_str().expect("the source tree has a plain name");
        writeln!(code, "    ({stem:?}, include_str!({path:?})),")
            .expect("writing to a String cannot fail");
    }
    code.push(']');
    let output =
        Path::new(&env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("catalogue.rs");
    fs::write(output, code).expect("writing the catalogue");
}

/// What sorts a name before those that it begins, and 5 before 12.
fn natural(path: &Path) -> Vec<(u64, String)> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let part = |part: &str| {
        let letters = part.trim_start_matches(|letter: char| letter.is_ascii_digit());
        let digits = &part[..part.len() - letters.len()];
        (digits.parse().unwrap_or(0), letters.to_owned())
    };
    stem.split('-').map(part).collect()
}
