//! Plays every evasion in `e2e/evasions` through a real Envoy. One Envoy reads request bodies, and another
//! one does not. The adapter's tests play the same evasions natively.

use e2e::scenario::envoy::ThroughEnvoy;
use e2e::scenario::{Evasion, Story, run};
use libtest_mimic::{Arguments, Failed, Trial};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// One world for each setting of whether bodies are read.
type Worlds = Arc<[Mutex<Option<ThroughEnvoy>>; 2]>;

fn main() {
    let mut arguments = Arguments::from_args();
    // The evasions share an Envoy. They are sorted by policy, because every change of the policy takes time.
    arguments.test_threads = Some(1);
    let worlds = Worlds::default();
    let read =
        |(name, path): (String, PathBuf)| (Evasion::read(&path).map(|evasion| evasion.story(&name)), name);
    let mut stories: Vec<_> = Evasion::all().into_iter().map(read).collect();
    stories.sort_by_key(|(story, _)| story.as_ref().ok().map(|story| format!("{:?}", story.policies)));
    let trials = stories.into_iter().map(|(story, name)| {
        let worlds = Arc::clone(&worlds);
        Trial::test(name, move || play(&worlds, &story?))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // `exit` does not drop values, so the processes would keep running.
    worlds.iter().for_each(|world| drop(lock(world).take()));
    conclusion.exit();
}

fn play(worlds: &Worlds, story: &Story) -> Result<(), Failed> {
    let mut world = lock(&worlds[usize::from(story.reads_bodies.is_some())]);
    let player = world.get_or_insert_with(|| ThroughEnvoy::start(story));
    Ok(run(story, player)?)
}

fn lock(world: &Mutex<Option<ThroughEnvoy>>) -> std::sync::MutexGuard<'_, Option<ThroughEnvoy>> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}
