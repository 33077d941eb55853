//! How a Wasm module names a cluster to Envoy when it makes a gRPC call: as Envoy's `GrpcService`, as text.
//!
//! A plain name would do, but Envoy first tries whether it is such a message, and a name that happens to be the
//! bytes of one without a target ends the process (tried on 1.40: the empty name does).

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

/// The longest name: the length of a longer one is no text any more.
pub const LONGEST: usize = 125;

/// The message. `None`: the name is empty, or longer than [`LONGEST`].
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
