use super::host;
use super::host::module::*;
use crate::root::Root;
use prost::Message;
use protocol::wire::weir::v1::{GetPlanRequest, GetPlanResponse};
use serde_json::json;

/// Starts a VM of a gateway, which polls these adapters. Returns the poll, and the plan that the VM already
/// has.
pub fn starts(root: u32, gateway: &str, cluster: &str) -> (u32, String) {
    let configuration = json!({ "adapter": { "cluster": cluster }, "gateway": gateway });
    host::with(|host| {
        host.configuration = configuration.to_string().into_bytes();
        host.sent.clear();
        host.enter(root);
    });
    proxy_wasm::set_root_context(|id| Box::new(Root::new(id)));
    proxy_on_context_create(root, 0);
    assert!(proxy_on_configure(root, host::with(|host| host.configuration.len())));
    proxy_on_tick(root);
    let asked = host::with(|host| host.sent.iter().find(|call| call.method == "GetPlan").cloned());
    let asked = asked.expect("it asks for its plan");
    (asked.token, GetPlanRequest::decode(&*asked.message).unwrap().version)
}

pub fn is_answered(root: u32, token: u32, plan: &GetPlanResponse) {
    let answer = plan.encode_to_vec();
    host::with(|host| {
        host.received.clone_from(&answer);
        host.enter(root);
    });
    proxy_on_grpc_receive(0, token, answer.len());
}

#[test]
fn a_vm_begins_with_the_plan_of_another_only_if_both_ask_the_same_adapters() {
    host::with(host::Host::reset);
    let (call, version) = starts(1, "default/llm", "weir");
    assert_eq!(version, "");
    is_answered(1, call, &GetPlanResponse { version: "one".to_owned(), ..GetPlanResponse::default() });
    for (root, gateway, cluster, begins_with) in [
        (2, "default/llm", "weir", "one"),
        (3, "default/llm", "another-weir", ""),
        (4, "default/other", "weir", ""),
    ] {
        assert_eq!(starts(root, gateway, cluster).1, begins_with, "{gateway} {cluster}");
    }
}
