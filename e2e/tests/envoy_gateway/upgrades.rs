//! Upgrades under load, in either order. No request is refused, and every token is charged.

use crate::Test;
use crate::world::{World, address};
use e2e::module::ModuleVersion;
use e2e::{artefacts, load, probe, wait};
use std::sync::Arc;

pub const TESTS: &[Test] = &[
    ("upgrade_of_the_adapters_and_then_the_module", adapters_first),
    ("upgrade_of_the_module_and_then_the_adapters", module_first),
    ("a_control_plane_that_starts_while_the_adapter_is_away_harms_no_proxy", control_plane_restarts),
];

fn adapters_first(world: &mut World) {
    world.settle("Deny");
    let (old, new) =
        (artefacts::wasm().display().to_string(), ModuleVersion::new(world.folder.path(), "new"));
    under_load(world, "adapters-first", |world| {
        roll_out(world, &new.file, &old);
        world.apply_filter(&new.digest);
        wait::until("the new module", || world.has_module(&new.digest).then_some(()));
    });
    back_to(world, &old, &new.file);
}

fn module_first(world: &mut World) {
    world.settle("Deny");
    let (old, new) =
        (artefacts::wasm().display().to_string(), ModuleVersion::new(world.folder.path(), "next"));
    under_load(world, "module-first", |world| {
        world.apply_filter(&new.digest);
        wait::until("the new listener", || {
            let dump = world.admin("/config_dump?resource=dynamic_listeners").text();
            (dump.contains(&new.digest) && dump.contains("warming_state")).then_some(())
        });
        load::some_requests(&world.upstream);
        roll_out(world, &new.file, &old);
        wait::until("the new module", || world.has_module(&new.digest).then_some(()));
    });
    back_to(world, &old, &new.file);
}

/// The control plane restarts and loses every module that it had fetched.
fn control_plane_restarts(world: &mut World) {
    world.settle("Deny");
    world.installed.kill();
    probe::becomes(address(), (503, None));
    world.restart_control_plane();
    // The new configuration reaches the proxy, which requests the module again.
    let asked = |world: &World| {
        let stats = world.admin("/stats?filter=control_plane.connected_state").text();
        stats.trim().ends_with(": 1")
    };
    wait::until("the control plane", || asked(world).then_some(()));
    let end = std::time::Instant::now() + std::time::Duration::from_secs(15);
    while std::time::Instant::now() < end {
        probe::stays(address(), (503, None), 1);
    }
    world.installed.restart();
    probe::heals("the adapter, after a restart of the control plane", address());
}

fn under_load(world: &mut World, user: &str, upgrade: impl FnOnce(&mut World)) {
    let upstream = Arc::clone(&world.upstream);
    let reported = load::during(address(), &upstream, user, || upgrade(world));
    world.installed.adapter().wait_for_bucket("per-user", "tokens", user, reported, 0);
}

fn roll_out(world: &mut World, module: &str, previous: &str) {
    let upstream = Arc::clone(&world.upstream);
    world.installed.roll_out(module, previous, || load::some_requests(&upstream));
}

/// Restores the state for the next test.
fn back_to(world: &mut World, module: &str, previous: &str) {
    world.installed.roll_out(module, previous, || {});
    let digest = world.installed.adapter().get("/weir.wasm.sha256").text();
    world.apply_filter(digest.trim());
    wait::until("the module as it was", || world.has_module(digest.trim()).then_some(()));
}
