//! Runs a pod's container as a kubelet would: mounts volumes, expands variables in arguments, and starts the
//! program.
//!
//! Mount paths are absolute, so this runs in a separate mount namespace (`scripts/alone.sh`).

use crate::cluster::Cluster;
use crate::network::PodNetwork;
use crate::process::Process;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The address of every pod without a separate network. Endpoints may not have a loopback address.
pub const ADDRESS: &str = "192.0.2.1";

/// Mounts volumes in a mount namespace of the container, and executes the program.
const ENTRY: &str = r#"while [ "$1" != -- ]; do mkdir -p "$2"; mount --bind "$1" "$2"; shift 2; done; shift; cd /; exec "$@""#;

/// A pod with one container.
pub struct Pod<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
    /// The `metadata` and `spec` of a Deployment's template.
    pub template: &'a Value,
    /// `None` means the machine's network.
    pub network: Option<&'a PodNetwork>,
}

impl Pod<'_> {
    /// Starts the pod's container with this program, and keeps its files in this folder.
    pub fn start(&self, cluster: &Cluster, program: &Path, folder: &Path) -> Process {
        self.prepare(cluster, folder);
        self.start_again(cluster, program, folder)
    }

    /// Writes the files of the pod's volumes.
    pub fn prepare(&self, cluster: &Cluster, folder: &Path) {
        let volumes = list(&self.template["spec"]["volumes"]).map(|volume| text(&volume["name"]));
        for volume in volumes.filter(|volume| self.mounts().any(|mount| mount["name"] == *volume)) {
            self.renew(cluster, volume, folder);
        }
    }

    fn mounts(&self) -> impl Iterator<Item = &Value> {
        list(&self.template["spec"]["containers"][0]["volumeMounts"])
    }

    /// Restarts the container with its existing files, without the API server.
    pub fn start_again(&self, cluster: &Cluster, program: &Path, folder: &Path) -> Process {
        assert!(
            std::env::var_os("WEIR_ALONE").is_some(),
            "this mounts folders at fixed places: run `make test-envoy-gateway` or `make test-istio`"
        );
        let container = &self.template["spec"]["containers"][0];
        let enter = self.network.map(PodNetwork::enter).into_iter().flatten();
        let mut words = enter.chain(["unshare".to_owned()]);
        let mut command = Command::new(words.next().expect("there is a command"));
        command.args(words).args(["--mount", "sh", "-ec", ENTRY, "sh"]);
        for mount in self.mounts() {
            command.arg(self.place(folder, text(&mount["name"]))).arg(text(&mount["mountPath"]));
        }
        command.arg("--").arg(program);
        let variables = self.variables(container);
        for argument in list(&container["args"]) {
            let said = variables.iter().fold(text(argument).to_owned(), |said, (name, value)| {
                said.replace(&format!("$({name})"), value)
            });
            command.arg(said);
        }
        command.envs(variables).env("KUBECONFIG", cluster.kubeconfig());
        Process::start(self.name, command, &folder.join(format!("{}.log", self.name)))
    }

    /// Writes the files of a volume again, as a kubelet does when a Secret changes.
    pub fn renew(&self, cluster: &Cluster, name: &str, folder: &Path) {
        let volume = list(&self.template["spec"]["volumes"]).find(|volume| volume["name"] == name);
        let volume = volume.unwrap_or_else(|| panic!("there is no volume {name}"));
        write(&self.place(folder, name), self.files(cluster, volume));
    }

    fn place(&self, folder: &Path, volume: &str) -> PathBuf {
        folder.join(format!("{}-{volume}", self.name))
    }

    fn variables(&self, container: &Value) -> Vec<(String, String)> {
        let value = |variable: &Value| {
            let resource = variable.pointer("/valueFrom/resourceFieldRef/resource").map(text);
            match (variable.pointer("/valueFrom/fieldRef/fieldPath").map(text), resource) {
                (Some("metadata.name"), _) => self.name.to_owned(),
                (Some("metadata.namespace"), _) => self.namespace.to_owned(),
                (Some("status.podIP" | "status.hostIP"), _) => {
                    self.network.map_or(ADDRESS, |network| &network.address).to_owned()
                }
                (Some("spec.serviceAccountName"), _) => self.account().to_owned(),
                (Some("spec.nodeName"), _) => "node".to_owned(),
                // Other fields, such as annotations that a controller would write, are empty.
                (Some(_), _) => String::new(),
                (None, Some(resource)) if resource.ends_with(".cpu") => "1".to_owned(),
                (None, Some(_)) => (1 << 30).to_string(),
                (None, None) => text(&variable["value"]).to_owned(),
            }
        };
        list(&container["env"])
            .map(|variable| (text(&variable["name"]).to_owned(), value(variable)))
            .collect()
    }

    fn account(&self) -> &str {
        text(&self.template["spec"]["serviceAccountName"])
    }

    /// Returns the files of a volume by name.
    fn files(&self, cluster: &Cluster, volume: &Value) -> BTreeMap<String, Vec<u8>> {
        let named = |name: &Value| name.as_str().map(str::to_owned);
        if let Some(name) = volume.pointer("/secret/secretName").and_then(named) {
            let decode = |value: &str| BASE64.decode(value).expect("a Secret's values are base64");
            return self.data(cluster, "secret", &name, decode);
        }
        if let Some(name) = volume.pointer("/configMap/name").and_then(named) {
            return self.data(cluster, "configmap", &name, |value| value.as_bytes().to_vec());
        }
        let downward = list(&volume["downwardAPI"]["items"]).map(|item| {
            let field = text(&item["fieldRef"]["fieldPath"]).trim_start_matches("metadata.").to_owned();
            let lines = self.template["metadata"][field].as_object().into_iter().flatten();
            let lines = lines.map(|(name, value)| format!("{name}={value}\n")).collect::<String>();
            (text(&item["path"]).to_owned(), lines.into_bytes())
        });
        let tokens = list(&volume["projected"]["sources"]).map(|source| {
            let token = &source["serviceAccountToken"];
            let audience = text(&token["audience"]);
            let made = cluster.run(&[
                "-n",
                self.namespace,
                "create",
                "token",
                self.account(),
                "--audience",
                audience,
                "--duration=10h",
            ]);
            (text(&token["path"]).to_owned(), made.trim().as_bytes().to_vec())
        });
        assert!(
            ["downwardAPI", "projected", "emptyDir"].iter().any(|kind| !volume[*kind].is_null()),
            "a volume of another kind: {volume}"
        );
        downward.chain(tokens).collect()
    }

    fn data(
        &self,
        cluster: &Cluster,
        kind: &str,
        name: &str,
        decode: impl Fn(&str) -> Vec<u8>,
    ) -> BTreeMap<String, Vec<u8>> {
        let object = cluster.get(&["-n", self.namespace, kind, name]);
        let data = object["data"].as_object();
        let data = data.unwrap_or_else(|| panic!("there is no {kind} {}/{name}", self.namespace));
        data.iter().map(|(key, value)| (key.clone(), decode(text(value)))).collect()
    }
}

/// Writes files as a kubelet does: into one folder, with a link to it that is replaced atomically.
fn write(place: &Path, files: BTreeMap<String, Vec<u8>>) {
    std::fs::create_dir_all(place).expect("a folder can be made");
    if files.is_empty() {
        return;
    }
    let number = std::fs::read_dir(place).expect("the folder is there").count();
    let version = format!("..{number}");
    std::fs::create_dir(place.join(&version)).expect("a folder can be made");
    for (name, bytes) in &files {
        std::fs::write(place.join(&version).join(name), bytes).expect("a file can be written");
    }
    let (data, new) = (place.join("..data"), place.join("..data_tmp"));
    symlink(&version, &new).expect("a link can be made");
    std::fs::rename(&new, &data).expect("a link can be moved");
    for name in files.keys() {
        let link = place.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(name), link).expect("a link can be made");
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
