//! A program that a test runs. It writes its log to a file and is killed when the test ends.

use crate::wait;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::fs::File;
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A running program.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program and appends its output to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the log file opens");
        let also = file.try_clone().expect("a file can be shared");
        command.stdin(Stdio::null()).stdout(file).stderr(also);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, name: name.to_owned(), log: log.to_owned() }
    }

    /// Returns the exit status, if the program has exited.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal)
            .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    /// Sends SIGSTOP, and waits until all threads have stopped.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let stopped = waitpid(Some(self.pid()), WaitOptions::UNTRACED).expect("a child can be waited for");
        assert!(stopped.is_some_and(|(_, status)| status.stopped()), "{} does not stop", self.name);
    }

    /// Kills the program and waits until it exits.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Sends SIGTERM and waits until the program exits.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        wait::until(&format!("the end of {}", self.name), || self.ended())
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Prints the end of the log.
    pub fn show_log(&self) {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let last = lines.len().saturating_sub(40);
        eprintln!("--- the end of the log of {}:\n{}\n---", self.name, lines[last..].join("\n"));
    }

    /// Returns the CPU time that all threads of the program have used, in hundredths of a second.
    pub fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.pid().as_raw_nonzero());
        let stat = std::fs::read_to_string(path).expect("a child has statistics");
        // The second field is the name in brackets, the 14th and 15th are the user and the system time.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let times = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>());
        times.map(|ticks| Duration::from_millis(10 * ticks.expect("a time is a number"))).sum()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_log();
        }
        self.kill();
    }
}

/// The fixed ports that Envoy Gateway and its proxies use.
const FIXED: Range<u16> = 18_000..20_000;

/// The number of ports in a block. A process owns a block by listening on its first port.
const BLOCK: u16 = 100;

/// Returns a free port that neither the system nor another test process will assign. It stays free until a
/// program listens on it.
pub fn free_port() -> u16 {
    static OURS: Mutex<Vec<(TcpListener, Range<u16>)>> = Mutex::new(Vec::new());
    let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let left = ours.last_mut().and_then(|(_, left)| left.next());
        match left {
            Some(port) if listen(port).is_some() => return port,
            Some(_) => {}
            None => ours.push(block()),
        }
    }
}

/// Finds a block that no process owns. Returns the block and the listener that claims it.
fn block() -> (TcpListener, Range<u16>) {
    let all = (12_000..31_000).step_by(BLOCK.into()).filter(|first| !FIXED.contains(first));
    let somewhere = usize::try_from(std::process::id()).unwrap_or_default() % all.clone().count();
    let mut all = all.clone().skip(somewhere).chain(all.take(somewhere));
    let taken = all.find_map(|first| Some((listen(first)?, first + 1..first + BLOCK)));
    taken.expect("there are ports that no other test has")
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).ok()
}
