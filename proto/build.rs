//! Compiles `api/` without an installed protoc.

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let api = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("api");
    let mut files = Vec::new();
    collect(&api, &mut files)?;
    files.sort();
    println!("cargo:rerun-if-changed={}", api.display());
    let descriptors = protox::compile(&files, [&api])?;
    let grpc = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    let mut config = prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .include_file("api.rs")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
