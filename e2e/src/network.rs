//! Simulates a cluster's network on one machine. Connections to a Service are distributed among its pods.
//! Each pod has a separate network. A silent node answers nothing, but connections to it stay open.
//!
//! This changes the network of the whole machine, so it runs in a separate network namespace
//! (`scripts/alone.sh`).

use crate::process::Process;
use crate::wait;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A Service's address and ports, as configured by kube-proxy.
pub struct Service {
    table: String,
}

impl Service {
    /// Distributes connections to each of these ports of the address among the listed ports of this machine,
    /// in turn.
    pub fn new(address: &str, ports: &[(u16, Vec<u16>)]) -> Self {
        assert_is_alone();
        run("ip", &["address", "replace", &format!("{address}/32"), "dev", "lo"]);
        let table = format!("weir-{}", address.replace('.', "-"));
        let rules: String = ports
            .iter()
            .flat_map(|(port, pods)| {
                let turns = (1..=pods.len()).rev();
                pods.iter().zip(turns).map(move |(pod, left)| {
                    let turn = if left > 1 { format!("numgen inc mod {left} 0 ") } else { String::new() };
                    format!("ip daddr {address} tcp dport {port} {turn}dnat to 127.0.0.1:{pod}\n")
                })
            })
            .collect();
        nft(&format!(
            "table ip {table} {{
                chain of_this_machine {{
                    type nat hook output priority -100;
                    {rules}
                }}
                chain of_pods {{
                    type nat hook prerouting priority -100;
                    {rules}
                }}
                chain to_silent {{
                    type filter hook input priority 0;
                }}
                chain of_silent {{
                    type filter hook output priority -300;
                }}
            }}"
        ));
        Self { table }
    }

    /// Silences the node of the pod with these ports: packets to and from it are silently dropped.
    pub fn silence(&self, ports: &[u16]) {
        let table = &self.table;
        let rules = ports.iter().map(|port| {
            format!(
                "add rule ip {table} to_silent tcp dport {port} drop\n\
                 add rule ip {table} of_silent tcp sport {port} drop\n"
            )
        });
        nft(&rules.collect::<String>());
    }

    /// Ends the silence.
    pub fn unsilence(&self) {
        let table = &self.table;
        nft(&format!("flush chain ip {table} to_silent\nflush chain ip {table} of_silent\n"));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        nft(&format!("delete table ip {}\n", self.table));
    }
}

/// The network of a pod. The pod has a separate address and can reach this machine.
pub struct PodNetwork {
    holder: Process,
    pub address: String,
    _folder: tempfile::TempDir,
}

impl PodNetwork {
    /// Creates the network with this number, at most 60.
    pub fn new(number: u8) -> Self {
        assert_is_alone();
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]);
        let holder = Process::start("a pod's network", command, &folder.path().join("network.log"));
        let (ours, address) = (format!("192.0.2.{}", 4 * number + 1), format!("192.0.2.{}", 4 * number + 2));
        let network = Self { holder, address, _folder: folder };
        let here = std::fs::read_link("/proc/self/ns/net").expect("there are namespaces");
        wait::until("a network of its own", || {
            std::fs::read_link(network.place()).ok().filter(|there| *there != here)
        });
        let (name, pid) = (format!("pod{number}"), network.pid());
        run("ip", &["link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        run("ip", &["address", "add", &format!("{ours}/30"), "dev", &name]);
        run("ip", &["link", "set", &name, "up"]);
        // The Service's pods listen on the loopback address.
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"), "1")
            .expect("the network is ours");
        for arguments in [
            vec!["address", "add", &format!("{}/30", network.address), "dev", "eth0"],
            vec!["link", "set", "eth0", "up"],
            vec!["link", "set", "lo", "up"],
            vec!["route", "add", "default", "via", &ours],
        ] {
            let enter = network.enter();
            run(&enter[0], &[enter[1].as_str(), "ip"].into_iter().chain(arguments).collect::<Vec<_>>());
        }
        network
    }

    /// Returns the prefix of a command that runs in this network.
    pub fn enter(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net={}", self.place().display())]
    }

    fn place(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pid()).into()
    }

    fn pid(&self) -> String {
        self.holder.pid().as_raw_nonzero().to_string()
    }
}

fn assert_is_alone() {
    assert!(
        std::env::var_os("WEIR_ALONE").is_some(),
        "this changes the machine's network: run `make test-outages`, `make test-envoy-gateway` or `make test-istio`"
    );
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
}

fn nft(rules: &str) {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("nft, of Debian's package nftables: {error}"));
    let mut stdin = child.stdin.take().expect("its input is ours");
    stdin.write_all(rules.as_bytes()).expect("nft reads");
    drop(stdin);
    assert!(child.wait().expect("nft ends").success(), "nft refuses:\n{rules}");
}
