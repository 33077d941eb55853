//! Runs tests one after another in a shared world that is slow to start. Each test can also be run alone.

use libtest_mimic::{Arguments, Trial};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// The name of a test, and its function.
pub type Test<W> = (&'static str, fn(&mut W));

/// A world that the first test starts and later tests reuse.
pub trait SharedWorld: Send + 'static {
    fn start() -> Self;
    /// Prints the logs after a failed test.
    fn show_logs(&self);
}

/// The main function of a test binary with a shared world.
pub fn run<W: SharedWorld>(tests: Vec<Test<W>>) -> ! {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let world: Arc<Mutex<Option<W>>> = Arc::default();
    let trials = tests.into_iter().map(|(name, test)| {
        let world = Arc::clone(&world);
        Trial::test(name, move || {
            let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
            let world = world.get_or_insert_with(W::start);
            catch_unwind(AssertUnwindSafe(|| test(world))).map_err(|panic| {
                world.show_logs();
                let said = panic.downcast_ref::<String>().map(String::as_str);
                said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").into()
            })
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // This stops the world's processes.
    drop(world.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit();
}
