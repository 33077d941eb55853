//! Runs a real PostgreSQL with a separate folder and port.

use crate::certificates::Authority;
use crate::process::{Process, free_port};
use crate::{artefacts, wait};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// The user `nobody` and its group in every distribution. PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;

/// The password of the user `weir`.
pub const PASSWORD: &str = "hunter2";

/// A running (or killed) PostgreSQL.
pub struct Postgres {
    process: Process,
    folder: TempDir,
    port: u16,
    settings: Vec<String>,
}

impl Postgres {
    /// Starts a server with an empty database `usage` of the user `weir`.
    pub fn start() -> Self {
        Self::started(None)
    }

    /// Starts a server with a certificate of this authority for 127.0.0.1.
    pub fn start_with_tls(authority: &Authority) -> Self {
        Self::started(Some(authority))
    }

    fn started(authority: Option<&Authority>) -> Self {
        let mut folder = tempfile::tempdir().expect("a temporary folder can be made");
        let password = folder.path().join("password");
        std::fs::write(&password, PASSWORD).expect("a file can be written");
        if is_root() {
            std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
            give_away(folder.path());
            give_away(&password);
        }
        let mut settings = Vec::new();
        if let Some(authority) = authority {
            authority.write(folder.path(), &["127.0.0.1"]);
            for name in ["tls.crt", "tls.key"] {
                let file = folder.path().join(name);
                std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("it is ours");
                give_away(&file);
            }
            let file = |name: &str| folder.path().join(name).display().to_string();
            settings.push("ssl=on".to_owned());
            settings.push(format!("ssl_cert_file={}", file("tls.crt")));
            settings.push(format!("ssl_key_file={}", file("tls.key")));
        }
        let mut initialise = program("initdb");
        initialise.args(["--username", "weir", "--auth", "scram-sha-256", "--no-sync", "--encoding", "UTF8"]);
        initialise.args(["--locale", "C", "--pwfile"]).arg(&password).arg("--pgdata").arg(data(&folder));
        let output = initialise.current_dir(folder.path()).output().expect("initdb starts");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        // Another process may take the port before PostgreSQL binds it.
        for _ in 0..3 {
            let port = free_port();
            let process = spawn(&folder, port, &settings);
            let mut postgres = Self { process, folder, port, settings };
            if postgres.becomes_ready() {
                postgres.sql_in("postgres", "CREATE DATABASE usage");
                return postgres;
            }
            (folder, settings) = (postgres.folder, postgres.settings);
        }
        panic!("there is no free port for PostgreSQL");
    }

    fn becomes_ready(&mut self) -> bool {
        wait::until("PostgreSQL", || match self.process.ended() {
            Some(_) => Some(false),
            None => self.try_sql("postgres", "SELECT 1").is_ok().then_some(true),
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL for `--usage`, with the password.
    pub fn url(&self) -> String {
        format!("postgres://weir:{PASSWORD}@127.0.0.1:{}/usage", self.port)
    }

    /// Returns the URL without the password.
    pub fn url_without_password(&self) -> String {
        format!("postgres://weir@127.0.0.1:{}/usage", self.port)
    }

    /// Runs a statement and returns its rows, with `|` between values.
    pub fn sql(&self, statement: &str) -> String {
        self.sql_in("usage", statement)
    }

    fn sql_in(&self, database: &str, statement: &str) -> String {
        self.try_sql(database, statement).unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    fn try_sql(&self, database: &str, statement: &str) -> Result<String, String> {
        let mut psql = Command::new(artefacts::postgres().join("psql"));
        psql.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "10").args(["-X", "-A", "-t", "-q"]);
        psql.args(["-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "weir", "-p", &self.port.to_string()]);
        let output = psql.args(["-d", database, "-c", statement]).output().expect("psql starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Kills the server with SIGKILL. Its other processes then end by themselves.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the server on the same port, with its data on disk. It refuses to start while processes of the
    /// killed one are still ending.
    pub fn restart(&mut self) {
        self.process.kill();
        wait::until("PostgreSQL after a crash", || {
            self.process = spawn(&self.folder, self.port, &self.settings);
            self.becomes_ready().then_some(())
        });
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn data(folder: &TempDir) -> std::path::PathBuf {
    folder.path().join("data")
}

fn give_away(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("root may do this");
    }
}

fn spawn(folder: &TempDir, port: u16, settings: &[String]) -> Process {
    let mut command = program("postgres");
    command.current_dir(folder.path()).arg("-D").arg(data(folder)).args(["-p", &port.to_string()]);
    // The operating system survives these tests, so nothing has to reach the disk.
    let own = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"];
    for setting in own.into_iter().chain(settings.iter().map(String::as_str)) {
        command.args(["-c", setting]);
    }
    Process::start("PostgreSQL", command, &folder.path().join("postgres.log"))
}

/// A program of PostgreSQL, not as root.
fn program(name: &str) -> Command {
    let path = artefacts::postgres().join(name);
    if !is_root() {
        return Command::new(path);
    }
    let (user, group) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
    let mut command = Command::new("setpriv");
    command.args([&user, &group, "--clear-groups", "--"]).arg(path);
    command
}

fn is_root() -> bool {
    std::fs::metadata(Path::new("/proc/self"))
        .map(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
        .unwrap_or_default()
}
