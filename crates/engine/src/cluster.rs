//! Encodes the name of a cluster as Envoy expects it in gRPC calls of a Wasm module: as a `GrpcService`.
//!
//! A plain name would work, but Envoy first tries to parse it as a `GrpcService`. A name that happens to
//! parse as one without a target crashes Envoy (seen on 1.40 with the empty name).

use prost::Message;

#[derive(Message)]
struct GrpcService {
    #[prost(message, optional, tag = "1")]
    envoy_grpc: Option<EnvoyGrpc>,
}

#[derive(Message)]
struct EnvoyGrpc {
    #[prost(string, tag = "1")]
    cluster_name: String,
}

/// The maximum length of a name, so that its encoded length fits in one byte.
pub const LONGEST: usize = 125;

/// Encodes the message. `None` if the name is empty or longer than [`LONGEST`].
pub fn grpc_service(name: &str) -> Option<String> {
    let envoy_grpc = Some(EnvoyGrpc { cluster_name: name.to_owned() });
    if name.is_empty() { None } else { String::from_utf8(GrpcService { envoy_grpc }.encode_to_vec()).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_wrapped_twice() {
        assert_eq!(grpc_service("adapter").as_deref(), Some("\n\x09\n\x07adapter"));
    }

    #[test]
    fn a_name_that_cannot_be_wrapped_is_none() {
        assert!(grpc_service(&"x".repeat(LONGEST)).is_some());
        for name in [String::new(), "x".repeat(LONGEST + 1), "x".repeat(300)] {
            assert_eq!(grpc_service(&name), None, "{}", name.len());
        }
    }
}
