//! Tests the manifests with Envoy Gateway's own control plane, a real API server, and a real Envoy as its
//! proxy.
//!
//! The tests share one world and run one after the other (`make test-envoy-gateway`).

mod control_plane;
mod manifests;
mod outages;
mod upgrades;
mod world;

use world::World;

type Test = e2e::shared_world::Test<World>;

fn main() {
    e2e::shared_world::run([manifests::TESTS, upgrades::TESTS, outages::TESTS].concat());
}
