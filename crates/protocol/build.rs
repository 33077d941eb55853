//! Generates Rust types for the messages in `proto/`. The services are generated in the crates that serve them.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    let files = [
        "kuadrant/service/ratelimit/v1/ratelimit.proto",
        "weir/v1/policy.proto",
        "weir/v1/reservation.proto",
        "weir/v1/usage.proto",
    ];
    println!("cargo::rerun-if-changed={root}");
    prost_build::Config::new().include_file("wire.rs").compile_fds(protox::compile(files, [root])?)?;
    Ok(())
}
