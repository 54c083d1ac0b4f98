//! Lists the migrations in `sql/clickhouse/`, so that each file that is there is in the binary.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    // Asked when this runs: a build folder may be kept while the checkout moves.
    let folder = variable("CARGO_MANIFEST_DIR")?.join("../sql/clickhouse");
    println!("cargo::rerun-if-changed=../sql/clickhouse");
    println!("cargo::rerun-if-env-changed=CARGO_MANIFEST_DIR");
    let entries = fs::read_dir(&folder)
        .map_err(|error| io::Error::new(error.kind(), format!("reading {}: {error}", folder.display())))?;
    let mut files = entries.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    if files.is_empty() {
        return Err(io::Error::other(format!("{} holds no migrations", folder.display())));
    }
    fs::write(variable("OUT_DIR")?.join("migrations.rs"), list(&files)?)
}

fn list(files: &[PathBuf]) -> io::Result<String> {
    let mut list = String::from("&[\n");
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        writeln!(list, "    ({name:?}, include_str!({:?})),", file.display().to_string())
            .map_err(io::Error::other)?;
    }
    list.push_str("]\n");
    Ok(list)
}

/// A variable that cargo sets.
fn variable(name: &str) -> io::Result<PathBuf> {
    env::var_os(name)
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::other(format!("{name} is not set: cargo does")))
}
