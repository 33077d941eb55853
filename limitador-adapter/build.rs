//! Generates the services of `proto/`. They use the messages of `protocol::wire`, so that each message is
//! defined only once.

use prost::Message;
use std::path::PathBuf;

const FILES: [&str; 5] = [
    "envoy/service/ratelimit/v3/rls.proto",
    "kuadrant/service/ratelimit/v1/ratelimit.proto",
    "weir/v1/policy.proto",
    "weir/v1/reservation.proto",
    "weir/v1/usage.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../proto";
    println!("cargo::rerun-if-changed={root}");
    let descriptors = protox::compile(FILES, [root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .extern_path(".envoy", "::protocol::wire::envoy")
        .extern_path(".kuadrant", "::protocol::wire::kuadrant")
        .extern_path(".weir", "::protocol::wire::weir")
        .include_file("services.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
