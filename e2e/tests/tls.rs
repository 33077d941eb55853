//! Tests who may call the adapter, and where proxies can fetch the module.

use e2e::adapter::Adapter;
use e2e::certificates::Authority;
use e2e::client::{Request, Response};
use e2e::envoy::Config;
use e2e::upstream::Upstream;
use e2e::world::{CONFIG, World, policy};
use e2e::{artefacts, wait};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

const NAME: &str = "limitador-adapter.weir-system.svc";

fn limits() -> String {
    let rates = json!([{ "limit": 1000, "window": "1h", "unit": "requests" }]);
    policy("llm", json!({ "failureMode": "Allow", "limits": { "all": { "rates": rates } } }))
}

fn is_limited(answer: &Response) -> bool {
    answer.header("x-ratelimit-limit-requests") == Some("1000")
}

/// Returns Envoy's TLS configuration, with the certificate in this folder or without one.
fn transport(authority: &Path, own: Option<&Path>) -> Value {
    let file = |folder: &Path, name: &str| json!({ "filename": folder.join(name).display().to_string() });
    let mut context = json!({ "validation_context": {
        "trusted_ca": file(authority, "ca.crt"),
        "match_typed_subject_alt_names": [{ "san_type": "DNS", "matcher": { "exact": NAME } }],
    } });
    if let Some(folder) = own {
        let pair =
            json!({ "certificate_chain": file(folder, "tls.crt"), "private_key": file(folder, "tls.key") });
        context["tls_certificates"] = json!([pair]);
    }
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": NAME,
        "common_tls_context": context,
    } })
}

fn cluster<'a>(config: &'a mut Config, name: &str) -> &'a mut Value {
    let clusters = config.all()["static_resources"]["clusters"].as_array_mut().unwrap();
    clusters.iter_mut().find(|cluster| cluster["name"] == name).unwrap()
}

fn secured(adapter: &Adapter, upstream: &Upstream, transport: Value) -> e2e::envoy::Envoy {
    let mut config = Config::read(CONFIG);
    config.cluster("llm", upstream.address());
    config.cluster("limitador-adapter", adapter.grpc());
    cluster(&mut config, "limitador-adapter")["transport_socket"] = transport;
    config.start(1)
}

#[test]
fn only_a_proxy_with_a_certificate_of_the_authority_is_heard_and_renewed_files_are_taken_up() {
    let (served, proxy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = Authority::new("first");
    authority.write(served.path(), &[NAME]);
    authority.write(proxy.path(), &["proxy"]);
    let file = |name: &str| served.path().join(name).display().to_string();
    let flags =
        ["--tls-cert", &file("tls.crt"), "--tls-key", &file("tls.key"), "--tls-client-ca", &file("ca.crt")];
    let adapter = Adapter::start_as(&[limits()], &flags);
    let upstream = Upstream::start();
    let known = secured(&adapter, &upstream, transport(proxy.path(), Some(proxy.path())));
    wait::until("a request that is limited", || {
        is_limited(&Request::chat(5).send(known.address())).then_some(())
    });
    let unknown = secured(&adapter, &upstream, transport(proxy.path(), None));
    wait::until("a plan that is not to be had", || {
        (unknown.stat("wasmcustom.weir_call_errors.method.GetPlan.cause.unavailable") > 1).then_some(())
    });
    assert!(!is_limited(&Request::chat(5).send(unknown.address())));

    let renewed = tempfile::tempdir().unwrap();
    let authority = Authority::new("second");
    authority.write(renewed.path(), &["proxy"]);
    authority.write(served.path(), &[NAME]);
    let after = secured(&adapter, &upstream, transport(renewed.path(), Some(renewed.path())));
    wait::until("a request that is limited after the renewal", || {
        is_limited(&Request::chat(5).send(after.address())).then_some(())
    });
    std::fs::write(served.path().join("tls.crt"), "no certificate").unwrap();
    assert!(is_limited(&Request::chat(5).send(known.address())), "what is open stays open");
}

#[test]
fn a_proxy_fetches_the_module_from_the_adapter() {
    let module = artefacts::wasm();
    let adapter = Adapter::start_as(&[limits()], &["--wasm", &module.display().to_string()]);
    let bytes = std::fs::read(&module).unwrap();
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let served = adapter.get("/weir.wasm");
    assert_eq!(served.header("content-type"), Some("application/wasm"));
    assert!(served.body == bytes);
    assert_eq!(adapter.get("/weir.wasm.sha256").text(), format!("{digest}\n"));
    let http = adapter.http();
    let world = World::build()
        .change(|config| {
            let remote = json!({ "remote": {
                "sha256": digest,
                "http_uri": { "uri": format!("http://{http}/weir.wasm"), "cluster": "weir-wasm", "timeout": "10s" },
            } });
            config.wasm()["config"]["vm_config"]["code"] = remote;
            let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": http.port() } });
            let endpoints = json!([{ "lb_endpoints": [{ "endpoint": { "address": address } }] }]);
            let cluster = json!({ "name": "weir-wasm", "type": "STATIC", "load_assignment": {
                "cluster_name": "weir-wasm", "endpoints": endpoints,
            } });
            config.all()["static_resources"]["clusters"].as_array_mut().unwrap().push(cluster);
        })
        .start_with(adapter);
    assert!(is_limited(&world.send(&Request::chat(5))));
}
