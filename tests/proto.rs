//! The gRPC code that is checked in is what the shipped `.proto` generates, so that building needs no generator.
//! `KITTIWAKE_GENERATE=1 cargo test --test proto` writes it anew.

use prost::Message;
use std::fs;
use std::path::{Path, PathBuf};

const PROTO: &str = "kittiwake/v1/gateway.proto";

/// The generated code, and the description of the service for reflection.
fn generate() -> (String, Vec<u8>) {
    let mut compiler = protox::Compiler::new([root().join("proto")]).expect("the folder is there");
    let described = compiler.include_imports(true).include_source_info(true);
    let files = described.open_file(PROTO).expect("the file is valid").file_descriptor_set();
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    tonic_prost_build::configure()
        .build_transport(false)
        .client_mod_attribute("kittiwake.v1", "#[cfg(test)]")
        .bytes(".kittiwake.v1")
        .out_dir(&out)
        .compile_fds(files.clone())
        .expect("code can be generated");
    let code = fs::read_to_string(out.join("kittiwake.v1.rs")).expect("it was just written");
    // Reflection needs no comments.
    let mut bare = files;
    bare.file.iter_mut().for_each(|file| file.source_code_info = None);
    (code, bare.encode_to_vec())
}

#[test]
fn the_generated_code_is_that_of_the_shipped_proto() {
    let (code, description) = generate();
    let (code_path, description_path) =
        (root().join("proto/generated/kittiwake.v1.rs"), root().join("proto/generated/kittiwake.v1.bin"));
    if std::env::var_os("KITTIWAKE_GENERATE").is_some() {
        fs::write(&code_path, &code).expect("it can be written");
        fs::write(&description_path, &description).expect("it can be written");
    }
    let stale = "the .proto has changed: KITTIWAKE_GENERATE=1 cargo test --test proto";
    assert!(fs::read_to_string(code_path).expect("it is checked in") == code, "{stale}");
    assert!(fs::read(description_path).expect("it is checked in") == description, "{stale}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
