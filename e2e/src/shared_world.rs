//! Tests that share one world, because starting it takes long, and run one after the other. Each can be run alone.

use libtest_mimic::{Arguments, Trial};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// A test's name, and the test.
pub type Test<W> = (&'static str, fn(&mut W));

/// What starts when the first test needs it.
pub trait SharedWorld: Send + 'static {
    /// Starts it.
    fn start() -> Self;
    /// For who looks for what went wrong.
    fn show_logs(&self);
}

/// The main function of such a test program.
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
    // Its processes end with it.
    drop(world.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit();
}
