//! Runs a real Redis with a separate folder and port.

use crate::process::{Process, free_port};
use crate::{artefacts, wait};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The configuration file. Sentinels rewrite it.
const CONFIGURATION: &str = "redis.conf";

/// The number of slots in every Redis cluster.
const SLOTS: u16 = 16_384;

/// A running (or stopped, or killed) Redis.
pub struct Redis {
    program: PathBuf,
    process: Process,
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts a Redis without persistence.
    pub fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"])
    }

    /// Starts a Redis with these arguments. `PORT` and `FOLDER` in them are replaced.
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::configured("", arguments)
    }

    /// Starts another program than the usual one.
    pub fn program(program: &Path) -> Self {
        Self::with_program(program, "", &["--save", "", "--appendonly", "no"])
    }

    /// Starts a replica of another.
    pub fn replica_of(master: &Redis) -> Self {
        let replica = Self::start_with(&["--save", "", "--replicaof", &format!("127.0.0.1 {}", master.port)]);
        wait::until("the replica", || {
            (replica.command(&["INFO"]).contains("master_link_status:up")).then_some(())
        });
        replica
    }

    /// Starts a sentinel that monitors another Redis under this name.
    pub fn sentinel(name: &str, master: &Redis) -> Self {
        let watch = format!(
            "sentinel monitor {name} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 2000\n",
            master.port
        );
        Self::configured(&watch, &["--sentinel"])
    }

    /// Starts a cluster of this many masters, with the slots divided among them.
    pub fn cluster(masters: u16) -> Vec<Self> {
        let nodes: Vec<_> = (0..masters).map(|_| Self::cluster_node()).collect();
        let share = SLOTS.div_ceil(masters);
        for (node, first) in nodes.iter().zip((0..SLOTS).step_by(share.into())) {
            let last = (first + share).min(SLOTS) - 1;
            let slots = ["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()];
            assert_eq!(node.command(&slots), "+OK");
            node.meet(&nodes[0]);
        }
        wait_for_cluster(&nodes);
        nodes
    }

    /// Starts a replica of a cluster's master. The replica takes over when the master is gone.
    pub fn cluster_replica_of(master: &Redis) -> Self {
        let replica = Self::cluster_node();
        replica.meet(master);
        let id = master.command(&["CLUSTER", "MYID"]);
        // The replica knows the master only after they have exchanged messages.
        wait::until("the replica to know its master", || {
            (replica.command(&["CLUSTER", "REPLICATE", &id]) == "+OK").then_some(())
        });
        wait::until("the replica", || {
            replica.command(&["INFO"]).contains("master_link_status:up").then_some(())
        });
        replica
    }

    fn cluster_node() -> Self {
        let arguments = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        Self::start_with(&[&arguments[..], &["--databases", "1", "--save", ""]].concat())
    }

    fn meet(&self, other: &Redis) {
        self.command(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string()]);
    }

    fn configured(configuration: &str, arguments: &[&str]) -> Self {
        Self::with_program(&artefacts::redis(), configuration, arguments)
    }

    fn with_program(program: &Path, configuration: &str, arguments: &[&str]) -> Self {
        // Another process may take the port before Redis binds it.
        for _ in 0..3 {
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            let port = free_port();
            std::fs::write(folder.path().join(CONFIGURATION), configuration).expect("a file can be written");
            let (own_port, own_folder) = (port.to_string(), folder.path().display().to_string());
            let arguments: Vec<_> = arguments
                .iter()
                .map(|argument| argument.replace("PORT", &own_port).replace("FOLDER", &own_folder))
                .collect();
            let process = spawn(program, &folder, port, &arguments);
            let mut redis = Self { program: program.to_owned(), process, folder, port, arguments };
            if redis.becomes_ready() {
                return redis;
            }
            assert!(redis.log().contains("in use"), "Redis ended:\n{}", redis.log());
        }
        panic!("there is no free port for Redis");
    }

    /// Checks the log as well, because another process may answer on the port.
    fn becomes_ready(&mut self) -> bool {
        let is_up =
            |log: String| ["Ready to accept connections", "Sentinel ID"].iter().any(|up| log.contains(up));
        wait::until("Redis", || match self.process.ended() {
            Some(_) => Some(false),
            None if !is_up(self.log()) => None,
            // A Redis that requires a password is ready, too.
            None => {
                self.try_command(&["PING"]).ok().filter(|answer| !answer.contains("LOADING")).map(|_| true)
            }
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL for `--storage`.
    pub fn url(&self, database: u16) -> String {
        format!("redis://127.0.0.1:{}/{database}", self.port)
    }

    /// Returns the reply to a command in Redis's notation.
    pub fn command(&self, words: &[&str]) -> String {
        self.try_command(words).unwrap_or_else(|error| panic!("{words:?}: {error}\n{}", self.log()))
    }

    fn try_command(&self, words: &[&str]) -> std::io::Result<String> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(wait::DEADLINE))?;
        let mut call = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| call += &format!("${}\r\n{word}\r\n", word.len()));
        (&stream).write_all(call.as_bytes())?;
        reply(&mut BufReader::new(&stream))
    }

    /// Returns a number from the server's INFO.
    pub fn info(&self, name: &str) -> u64 {
        let info = self.command(&["INFO", "everything"]);
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in {info}"))
    }

    /// Returns the CPU time that the server has used.
    pub fn cpu(&self) -> Duration {
        let info = self.command(&["INFO", "cpu"]);
        let seconds = ["used_cpu_user:", "used_cpu_sys:"].map(|name| {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            value.unwrap_or_else(|| panic!("no {name} in {info}"))
        });
        Duration::from_secs_f64(seconds.iter().sum())
    }

    /// Moves a slot of a cluster, with all its keys, to another of these nodes, as redis-cli does.
    pub fn move_slot(&self, slot: u16, target: &Redis, nodes: &[Redis]) {
        let slot = slot.to_string();
        let (from, to) = (self.command(&["CLUSTER", "MYID"]), target.command(&["CLUSTER", "MYID"]));
        let set = |node: &Redis, what: &str, id: &str| {
            assert_eq!(node.command(&["CLUSTER", "SETSLOT", &slot, what, id]), "+OK");
        };
        set(target, "IMPORTING", &from);
        set(self, "MIGRATING", &to);
        let port = target.port.to_string();
        loop {
            let keys = self.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]);
            if keys.is_empty() {
                break;
            }
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys.lines());
            let answer = self.command(&migrate);
            assert!(["+OK", "+NOKEY"].contains(&answer.as_str()), "{answer}");
        }
        let others = nodes.iter().filter(|node| ![self.port, target.port].contains(&node.port));
        [target, self].into_iter().chain(others).for_each(|node| set(node, "NODE", &to));
    }

    /// Stops the process without ending it.
    pub fn freeze(&self) {
        self.process.stop();
    }

    /// Continues a stopped process.
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Restarts Redis if a test has left it stopped.
    pub fn revive(&mut self) {
        if self.try_command(&["PING"]).is_err() {
            self.restart();
        }
    }

    /// Restarts Redis on the same port, with its data on disk.
    pub fn restart(&mut self) {
        self.process.kill();
        self.repair();
        self.process = spawn(&self.program, &self.folder, self.port, &self.arguments);
        assert!(self.becomes_ready(), "Redis does not come back:\n{}", self.log());
    }

    /// Removes a transaction that a kill has left incomplete at the end of the append-only file, with Redis's own tool.
    /// Redis itself may remove only a part of it, and then writes the next transaction into the rest. So the next start
    /// would replay half of the transaction (valkey-io/valkey#4342).
    fn repair(&self) {
        let manifest = self.folder.path().join("appendonlydir/appendonly.aof.manifest");
        if !manifest.exists() {
            return;
        }
        let mut tool = Command::new(&self.program);
        tool.arg0("redis-check-aof").arg("--fix").arg(&manifest).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut tool = tool.spawn().expect("redis-check-aof starts");
        // It asks before it changes the file. If there is nothing to change, it has ended.
        let _ = tool.stdin.take().map(|mut answer| answer.write_all(b"y\n"));
        let told = tool.wait_with_output().expect("redis-check-aof ends");
        assert!(told.status.success(), "redis-check-aof: {}", String::from_utf8_lossy(&told.stdout));
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// Reads one reply: a line, or the text that the line announces. The elements of an array become lines.
fn reply(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.trim_end();
    let length = |kind| line.strip_prefix(kind).and_then(|length| length.parse::<usize>().ok());
    if let Some(length) = length('*') {
        let elements: Result<Vec<_>, _> = (0..length).map(|_| reply(reader)).collect();
        return Ok(elements?.join("\n"));
    }
    let Some(length) = length('$') else { return Ok(line.to_owned()) };
    let mut text = vec![0; length + "\r\n".len()];
    reader.read_exact(&mut text)?;
    text.truncate(length);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Waits until every node knows all the others and the cluster can answer commands.
fn wait_for_cluster(nodes: &[Redis]) {
    let all = format!("cluster_known_nodes:{}\r", nodes.len());
    wait::until("the cluster", || {
        let is_ready = |node: &Redis| {
            let info = node.command(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains(&all)
        };
        nodes.iter().all(is_ready).then_some(())
    });
}

fn spawn(program: &Path, folder: &TempDir, port: u16, arguments: &[String]) -> Process {
    let mut command = Command::new(program);
    command.current_dir(folder.path()).arg(CONFIGURATION).args([
        "--port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
    ]);
    command.args(["--databases", "1024", "--dir"]).arg(folder.path()).args(arguments);
    Process::start("Redis", command, &folder.path().join("redis.log"))
}
