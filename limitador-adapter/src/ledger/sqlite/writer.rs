//! The thread that writes changes to the file, in one transaction for all calls that wait.

use super::SqliteClock;
use super::counter_file::{CounterFile, WriteError};
use crate::ledger::Unavailable;
use crate::ledger::memory::MemoryLedger;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The shortest time between the beginnings of two transactions. Calls that come in the meantime share the
/// next one.
const GATHER: Duration = Duration::from_millis(2);

/// How long changes that nobody waits for may stay unwritten.
const BEHIND: Duration = Duration::from_millis(100);

/// The pause after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// How often forgotten rows are deleted.
const FORGET: Duration = Duration::from_secs(10);

/// Writes until it is dropped.
pub struct Writer {
    queue: Arc<WriteQueue>,
    thread: Option<JoinHandle<()>>,
}

type Waiting = oneshot::Sender<Result<(), Unavailable>>;

#[derive(Default)]
struct WriteQueue {
    state: Mutex<QueueState>,
    wake: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: Vec<Waiting>,
    stops: bool,
    /// Why the last transaction failed.
    failure: Option<Unavailable>,
    has_ended: bool,
}

impl Writer {
    pub fn start(file: CounterFile, memory: Arc<MemoryLedger>, clock: SqliteClock) -> std::io::Result<Self> {
        let queue = Arc::<WriteQueue>::default();
        let ended = ThreadEnd(Arc::clone(&queue));
        let thread = std::thread::Builder::new().name("counters".to_owned());
        let thread = thread.spawn(move || write(file, &memory, &clock, &ended.0))?;
        Ok(Self { queue, thread: Some(thread) })
    }

    /// Waits until everything that the memory has changed so far is in the file.
    pub async fn durable(&self) -> Result<(), Unavailable> {
        let (waiting, written) = oneshot::channel();
        {
            let mut state = self.queue.state();
            if state.has_ended {
                return Err(ended());
            }
            state.waiting.push(waiting);
        }
        self.queue.wake.notify_one();
        written.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Fails if the last transaction failed.
    pub fn ready(&self) -> Result<(), Unavailable> {
        let state = self.queue.state();
        if state.has_ended {
            return Err(ended());
        }
        state.failure.clone().map_or(Ok(()), Err)
    }
}

impl Drop for Writer {
    /// Writes what is left.
    fn drop(&mut self) {
        self.queue.state().stops = true;
        self.queue.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes counters has panicked");
        }
    }
}

impl WriteQueue {
    /// A panic cannot leave the queue inconsistent.
    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until somebody waits, until it is time to write anyway, or until the end. Returns who waits, and
    /// whether it is the end.
    fn next(&self) -> (Vec<Waiting>, bool) {
        let is_idle = |state: &mut QueueState| state.waiting.is_empty() && !state.stops;
        let waited = self.wake.wait_timeout_while(self.state(), BEHIND, is_idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut state.waiting), state.stops)
    }

    fn finish(&self, waiting: Vec<Waiting>, written: &Result<(), Unavailable>) {
        let mut state = self.state();
        state.failure = written.clone().err();
        drop(state);
        for one in waiting {
            // The caller may have given up.
            one.send(written.clone()).unwrap_or_default();
        }
    }
}

/// Records that the thread has ended, even if it panicked.
struct ThreadEnd(Arc<WriteQueue>);

impl Drop for ThreadEnd {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.has_ended = true;
        state.waiting.clear();
    }
}

fn ended() -> Unavailable {
    Unavailable::failed("nothing writes counters any more")
}

fn write(mut file: CounterFile, memory: &MemoryLedger, clock: &SqliteClock, queue: &WriteQueue) {
    let mut forgot = Instant::now();
    loop {
        let (waiting, stops) = queue.next();
        let started = Instant::now();
        let written = write_changes(&mut file, memory, clock);
        let written = written.map_err(|error| {
            Unavailable::failed(format!("counters cannot be written, so filters keep their charges: {error}"))
        });
        queue.finish(waiting, &written);
        if stops {
            return;
        }
        if forgot.elapsed() > FORGET && written.is_ok() {
            match file.forget(clock()) {
                Ok(true) => {}
                Ok(false) => forgot = started,
                Err(error) => {
                    tracing::warn!(%error, "forgotten rows cannot be deleted");
                    forgot = started;
                }
            }
        }
        let pause = if written.is_ok() { GATHER } else { RETRY };
        std::thread::sleep(pause.saturating_sub(started.elapsed()));
    }
}

fn write_changes(
    file: &mut CounterFile,
    memory: &MemoryLedger,
    clock: &SqliteClock,
) -> Result<(), WriteError> {
    let now = clock();
    let changes = memory.changes(now);
    if changes.is_empty() {
        return Ok(());
    }
    let written = file.write(&changes, now);
    if written.is_err() {
        memory.note(changes, now);
    }
    written
}
