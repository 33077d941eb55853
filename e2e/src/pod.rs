//! What a kubelet does with a pod's container, where there is none: volumes of Secrets and ConfigMaps at their places,
//! the arguments with their variables, and the program.
//!
//! The places are those of the whole machine, so it asks for a file system of its own (`scripts/envoy-gateway.sh`).

use crate::cluster::Cluster;
use crate::process::Process;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Puts volumes at their places, in a view of the file system that only this container has, and becomes the program.
const ENTRY: &str =
    r#"while [ "$1" != -- ]; do mkdir -p "$2"; mount --bind "$1" "$2"; shift 2; done; shift; exec "$@""#;

/// Starts a container of a pod (its name, its `spec`, its namespace) as this program, and keeps its files here.
pub fn start(
    cluster: &Cluster,
    (name, namespace, spec): (&str, &str, &Value),
    program: &Path,
    folder: &Path,
) -> Process {
    assert!(
        std::env::var_os("WEIR_ALONE").is_some(),
        "this mounts folders at fixed places: run `make test-envoy-gateway`"
    );
    let container = &spec["containers"][0];
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", ENTRY, "sh"]);
    for mount in list(&container["volumeMounts"]) {
        let volume = list(&spec["volumes"]).find(|volume| volume["name"] == mount["name"]);
        let volume = volume.unwrap_or_else(|| panic!("there is no volume for {mount}"));
        let place = folder.join(format!("{name}-{}", text(&mount["name"])));
        fill(cluster, namespace, volume, &place);
        command.arg(place).arg(text(&mount["mountPath"]));
    }
    command.arg("--").arg(program);
    let variables = variables(container, name, namespace);
    for argument in list(&container["args"]) {
        let said = variables.iter().fold(text(argument).to_owned(), |said, (name, value)| {
            said.replace(&format!("$({name})"), value)
        });
        command.arg(said);
    }
    command.envs(variables).env("KUBECONFIG", cluster.kubeconfig());
    Process::start(name, command, &folder.join(format!("{name}.log")))
}

fn variables(container: &Value, pod: &str, namespace: &str) -> Vec<(String, String)> {
    let value = |variable: &Value| match variable.pointer("/valueFrom/fieldRef/fieldPath").map(text) {
        Some("metadata.name") => pod.to_owned(),
        Some("metadata.namespace") => namespace.to_owned(),
        // Annotations that a node's controller would have written.
        Some(_) => String::new(),
        None => text(&variable["value"]).to_owned(),
    };
    list(&container["env"]).map(|variable| (text(&variable["name"]).to_owned(), value(variable))).collect()
}

/// A file for each key of the Secret or ConfigMap.
fn fill(cluster: &Cluster, namespace: &str, volume: &Value, place: &PathBuf) {
    std::fs::create_dir_all(place).expect("a folder can be made");
    let secret = volume.pointer("/secret/secretName");
    let (kind, name) = match (secret, volume.pointer("/configMap/name")) {
        (Some(name), _) => ("secret", text(name)),
        (None, Some(name)) => ("configmap", text(name)),
        (None, None) => panic!("a volume of another kind: {volume}"),
    };
    let object = cluster.get(&["-n", namespace, kind, name]);
    let data = object["data"].as_object().unwrap_or_else(|| panic!("there is no {kind} {namespace}/{name}"));
    write(data, secret.is_some(), place);
}

fn write(data: &Map<String, Value>, encoded: bool, place: &Path) {
    for (key, value) in data {
        let bytes = match encoded {
            true => BASE64.decode(text(value)).expect("a Secret's values are base64"),
            false => text(value).as_bytes().to_vec(),
        };
        std::fs::write(place.join(key), bytes).expect("a file can be written");
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
