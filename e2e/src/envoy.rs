//! Runs the real Envoy with a configuration file from the repository. Only the addresses and the module's
//! path are changed, so that several Envoys can run at once.

use crate::client::Request;
use crate::process::Process;
use crate::{artefacts, wait};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A configuration that can be edited before Envoy starts.
#[derive(Clone, Debug)]
pub struct Config(Value);

/// A running Envoy.
pub struct Envoy {
    process: Process,
    admin: SocketAddr,
    listener: SocketAddr,
    _folder: TempDir,
}

impl Config {
    /// Reads `e2e/envoy.yaml` or an example's configuration, by its path in the repository.
    pub fn read(path: impl AsRef<Path>) -> Self {
        let path = artefacts::root().join(path);
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut config =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        free_ports(&mut config);
        Self(config)
    }

    /// Uses these ports instead of free ones.
    pub fn listen(&mut self, port: u16, admin: u16) {
        self.0["admin"]["address"]["socket_address"]["port_value"] = admin.into();
        self.0["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = port.into();
    }

    /// Points a cluster at this address.
    pub fn cluster(&mut self, name: &str, address: SocketAddr) {
        let endpoint = &mut self.endpoints(name)[0]["endpoint"];
        endpoint["address"]["socket_address"] =
            json!({ "address": address.ip().to_string(), "port_value": address.port() });
    }

    /// Adds an address to a cluster.
    pub fn also(&mut self, name: &str, address: SocketAddr) {
        let address = json!({ "address": address.ip().to_string(), "port_value": address.port() });
        self.endpoints(name).push(json!({ "endpoint": { "address": { "socket_address": address } } }));
    }

    /// Returns the configuration of a cluster.
    pub fn named_cluster(&mut self, name: &str) -> Value {
        self.named(name).clone()
    }

    /// Edits a cluster.
    pub fn edit_cluster(&mut self, name: &str, edit: impl FnOnce(&mut Value)) {
        edit(self.named(name));
    }

    /// Adds a cluster like the upstream's, with this name and address, and routes all requests to it.
    pub fn route_to(&mut self, name: &str, upstream: SocketAddr) {
        let mut cluster = self.named_cluster("llm");
        cluster["name"] = name.into();
        self.add_cluster(cluster);
        self.cluster(name, upstream);
        let hosts = &mut self.typed(".HttpConnectionManager")["route_config"]["virtual_hosts"];
        for route in hosts[0]["routes"].as_array_mut().expect("a list") {
            route["route"]["cluster"] = name.into();
        }
    }

    /// Copies the settings of another cluster, except for addresses and TLS.
    pub fn take_settings(&mut self, name: &str, from: &Value) {
        let cluster = self.named(name);
        for (field, value) in from.as_object().into_iter().flatten() {
            if !["load_assignment", "transport_socket"].contains(&field.as_str()) {
                cluster[field] = value.clone();
            }
        }
    }

    /// Points the adapter's cluster at this address, with the settings of the shipped configuration.
    pub fn adapter_as_shipped(&mut self, address: SocketAddr) {
        let shipped = Self::read("manifests/envoy/envoy.yaml").named_cluster("limitador-adapter");
        self.take_settings("limitador-adapter", &shipped);
        self.cluster("limitador-adapter", address);
    }

    /// Returns whether there is a cluster of this name.
    pub fn has_cluster(&mut self, name: &str) -> bool {
        self.clusters().iter().any(|cluster| cluster["name"] == name)
    }

    /// Adds a cluster.
    pub fn add_cluster(&mut self, cluster: Value) {
        self.clusters().push(cluster);
    }

    /// Moves the first listener to this file. Envoy reloads it when [`write_listener`] replaces the file.
    pub fn listener_from(&mut self, file: &Path) -> Value {
        let listeners = self.0["static_resources"].as_object_mut().and_then(|all| all.remove("listeners"));
        self.0["node"] = json!({ "id": "e2e", "cluster": "e2e" });
        self.0["dynamic_resources"]["lds_config"] =
            json!({ "resource_api_version": "V3", "path_config_source": { "path": file } });
        listeners.expect("the configuration has listeners")[0].take()
    }

    fn clusters(&mut self) -> &mut Vec<Value> {
        self.0["static_resources"]["clusters"].as_array_mut().expect("clusters are a list")
    }

    fn named(&mut self, name: &str) -> &mut Value {
        let named = self.clusters().iter_mut().find(|named| named["name"] == name);
        named.unwrap_or_else(|| panic!("the configuration has no cluster {name}"))
    }

    fn endpoints(&mut self, cluster: &str) -> &mut Vec<Value> {
        let endpoints = &mut self.named(cluster)["load_assignment"]["endpoints"][0]["lb_endpoints"];
        endpoints.as_array_mut().expect("endpoints are a list")
    }

    /// Edits the filter's own configuration.
    pub fn plugin(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.wasm()["config"]["configuration"]["value"]);
    }

    /// Returns the Wasm filter's typed configuration.
    pub fn wasm(&mut self) -> &mut Value {
        typed(&mut self.0, ".wasm.v3.Wasm").expect("the configuration has our filter")
    }

    /// Returns the HTTP filters, in order.
    pub fn filters(&mut self) -> &mut Vec<Value> {
        let manager = typed(&mut self.0, ".HttpConnectionManager").expect("the configuration serves HTTP");
        manager["http_filters"].as_array_mut().expect("http_filters is a list")
    }

    /// Returns the filter with a type name that ends in this text.
    pub fn typed(&mut self, suffix: &str) -> &mut Value {
        typed(&mut self.0, suffix).unwrap_or_else(|| panic!("the configuration has no {suffix}"))
    }

    /// Returns the whole configuration, for other edits.
    pub fn all(&mut self) -> &mut Value {
        &mut self.0
    }

    /// Lets Envoy validate the configuration without running. Returns Envoy's error, if any.
    pub fn validate(&self) -> Result<(), String> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let output = self.command(folder.path()).args(["--mode", "validate"]).output().expect("Envoy starts");
        let text =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        if output.status.success() { Ok(()) } else { Err(text) }
    }

    /// Writes the configuration to a file, with the module's real path.
    pub fn write(&self, file: &Path) {
        let mut config = self.clone();
        if let Some(wasm) = typed(&mut config.0, ".wasm.v3.Wasm") {
            let file = wasm.pointer_mut("/config/vm_config/code/local/filename");
            if let Some(file) = file.filter(|file| file.as_str() == Some("dist/weir.wasm")) {
                *file = artefacts::wasm().display().to_string().into();
            }
        }
        std::fs::write(file, config.0.to_string()).expect("a file can be written");
    }

    fn command(&self, folder: &Path) -> Command {
        let file = folder.join("envoy.json");
        self.write(&file);
        let mut command = Command::new(artefacts::envoy());
        command.arg("-c").arg(file).args(["--disable-hot-restart", "--log-level", "warning"]);
        command.args(["--component-log-level", "wasm:info", "--file-flush-interval-msec", "50"]);
        command.current_dir(artefacts::root());
        command
    }

    /// Starts Envoy, and returns its error if it exits instead of serving.
    pub fn try_start(&self, workers: u32) -> Result<Envoy, String> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let admin_file = folder.path().join("admin");
        let mut command = self.command(folder.path());
        command.arg("--admin-address-path").arg(&admin_file).args(["--concurrency", &workers.to_string()]);
        let mut process = Process::start("Envoy", command, &folder.path().join("envoy.log"));
        let found = wait::until("Envoy's start", || match process.ended() {
            Some(_) => Some(Err(process.log())),
            None => addresses(&admin_file).map(Ok),
        });
        let (admin, listener) = found?;
        Ok(Envoy { process, admin, listener, _folder: folder })
    }

    /// Starts Envoy and waits until it serves.
    pub fn start(&self, workers: u32) -> Envoy {
        self.try_start(workers).unwrap_or_else(|log| panic!("Envoy does not start:\n{log}"))
    }
}

/// Writes a listener to the file of [`Config::listener_from`].
pub fn write_listener(file: &Path, listener: &Value, version: u64) {
    let mut listener = listener.clone();
    listener["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
    let new = file.with_extension("new");
    let found = json!({ "version_info": version.to_string(), "resources": [listener] });
    std::fs::write(&new, found.to_string()).expect("a file can be written");
    std::fs::rename(new, file).expect("a file can be moved");
}

/// Returns the addresses of the admin interface and the first listener, once Envoy is live.
fn addresses(admin_file: &PathBuf) -> Option<(SocketAddr, SocketAddr)> {
    let admin: SocketAddr = std::fs::read_to_string(admin_file).ok()?.trim().parse().ok()?;
    let ready = Request::get("/ready").try_send(admin).ok()?;
    let listeners = Request::get("/listeners?format=json").try_send(admin).ok()?.json();
    let address = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
    let port = address["port_value"].as_u64()? as u16;
    (ready.status == 200).then_some((admin, ([127, 0, 0, 1], port).into()))
}

/// Lets the system choose the port of every listener.
fn free_ports(config: &mut Value) {
    config["admin"]["address"]["socket_address"] = json!({ "address": "127.0.0.1", "port_value": 0 });
    for listener in config["static_resources"]["listeners"].as_array_mut().into_iter().flatten() {
        listener["address"]["socket_address"] = json!({ "address": "127.0.0.1", "port_value": 0 });
    }
}

/// Returns the message with a type name that ends in this text, from anywhere in a configuration.
pub fn typed<'a>(value: &'a mut Value, suffix: &str) -> Option<&'a mut Value> {
    let mine = value.get("@type").and_then(Value::as_str).is_some_and(|name| name.ends_with(suffix));
    match value {
        _ if mine => Some(value),
        Value::Object(fields) => fields.values_mut().find_map(|value| typed(value, suffix)),
        Value::Array(items) => items.iter_mut().find_map(|value| typed(value, suffix)),
        _ => None,
    }
}

impl Envoy {
    /// Returns the address of the first listener.
    pub fn address(&self) -> SocketAddr {
        self.listener
    }

    /// Returns the statistic with this full name, or 0 if there is none.
    pub fn stat(&self, name: &str) -> u64 {
        let text = Request::get("/stats").send(self.admin).text();
        let values = text.lines().filter_map(|line| line.split_once(": ")).filter(|(key, _)| *key == name);
        values.filter_map(|(_, value)| value.trim().parse::<u64>().ok()).sum()
    }

    /// Returns how many times a worker has put a plan into force.
    pub fn plans(&self) -> u64 {
        self.stat("wasmcustom.weir_plans")
    }

    /// Returns all statistics with this text in their names.
    pub fn stats(&self, part: &str) -> String {
        let text = Request::get("/stats").send(self.admin).text();
        text.lines().filter(|line| line.contains(part)).map(|line| format!("{line}\n")).collect()
    }

    pub fn pid(&self) -> i32 {
        self.process.pid().as_raw_nonzero().get()
    }

    /// Returns the address of the admin interface.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Prints the end of the log.
    pub fn show_log(&self) {
        self.process.show_log();
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Returns whether Envoy is still running.
    pub fn runs(&mut self) -> bool {
        self.process.ended().is_none()
    }
}
