//! Tests the manifests with Istio's own control plane, a real API server, and Istio's own agent with a real
//! Envoy.
//!
//! The tests share one world and run one after the other (`make test-istio`).

mod control_plane;
mod manifests;
mod outages;
mod world;

use world::World;

type Test = e2e::shared_world::Test<World>;

fn main() {
    e2e::shared_world::run([manifests::TESTS, outages::TESTS].concat());
}
