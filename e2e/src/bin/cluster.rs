//! Runs a cluster for experiments until the process is stopped. Copies the kubeconfig to the given file.

use e2e::cluster::Cluster;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() {
    let file = std::env::args_os().nth(1).expect("the file for the kubeconfig");
    let mut signals = Signals::new([SIGINT, SIGTERM]).expect("signals can be caught");
    let cluster = Cluster::start();
    cluster.install();
    std::fs::copy(cluster.kubeconfig(), file).expect("the kubeconfig can be written");
    signals.forever().next();
}
