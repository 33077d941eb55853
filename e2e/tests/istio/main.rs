//! Istio's own control plane against a real API server, and its own agent with a real Envoy: what they make of our manifests.
//!
//! The tests share one world, and run one after the other (`make test-istio`).

mod control_plane;
mod manifests;
mod outages;
mod world;

use libtest_mimic::{Arguments, Trial};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use world::World;

type Test = (&'static str, fn(&mut World));

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let world: Arc<Mutex<Option<World>>> = Arc::default();
    let trials = [manifests::TESTS, outages::TESTS].concat().into_iter().map(|(name, test): Test| {
        let world = Arc::clone(&world);
        Trial::test(name, move || {
            let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
            let world = world.get_or_insert_with(World::start);
            catch_unwind(AssertUnwindSafe(|| test(world))).map_err(|panic| {
                world.show_logs();
                let said = panic.downcast_ref::<String>().map(String::as_str);
                said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").into()
            })
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // Its processes end with it.
    drop(world.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit();
}
