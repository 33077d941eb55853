//! Tests Weir in a real cluster of two nodes, which `scripts/cluster.sh` starts. Weir is installed as
//! documented, stays under load during all disruptions, and is uninstalled.

mod disruptions;
mod document;
mod nodes;
mod objects;
mod traffic;

use disruptions::{Expected, Table};
use document::Document;
use nodes::NodeCluster;
use objects::ObjectNames;
use std::time::{Duration, Instant};

/// The maximum time from an empty cluster to the first refused request.
const INSTALL_TIME: Duration = Duration::from_secs(600);

#[test]
fn it_is_installed_kept_and_uninstalled() {
    let cluster = NodeCluster::new();
    let began = Instant::now();
    cluster.install_gateway();
    let before = ObjectNames::of(&cluster);
    Document::read("docs/get-started-cluster.md").follow(&cluster, &["Istio", "Uninstall"]);
    cluster.is_limited();
    println!("from an empty cluster to a limited request: {:.0?}", began.elapsed());
    assert!(began.elapsed() < INSTALL_TIME, "{:?}", began.elapsed());
    cluster.is_in_order();

    cluster.prepare_for_load();
    let mut table = Table::new(&cluster);
    table.play("rolling the adapter", Expected::Nothing, || cluster.roll_adapter());
    table.play("killing an adapter", Expected::Unchecked, || cluster.kill_adapter());
    table.play("draining a node", Expected::Nothing, || cluster.drain_node());
    table.play("restarting Redis", Expected::Unchecked, || cluster.restart_redis());
    table.play("upgrading chart and module", Expected::Nothing, || cluster.upgrade());
    cluster.is_in_order();
    table.play_uninstall(|| {
        Document::read("docs/get-started-cluster.md").follow_section(&cluster, "Uninstall")
    });
    println!("{table}");
    cluster.forget_load();
    ObjectNames::of(&cluster).are_as_before(&before);
    table.conclude();
}

#[test]
#[ignore = "make test-release runs it, with the files of a release"]
fn a_release_is_installed() {
    let cluster = NodeCluster::of_release();
    cluster.install_gateway();
    let before = ObjectNames::of(&cluster);
    let release = Document::read("docs/installing.md");
    let cluster_page = Document::read("docs/get-started-cluster.md");
    for section in ["1. Verify the files", "Without a registry", "3. Create the certificates"] {
        release.follow_section(&cluster, section);
    }
    cluster_page.follow_section(&cluster, "Envoy Gateway");
    release.follow_section(&cluster, "4. Install the chart");
    for section in ["The certificate in Envoy Gateway's proxies", "5. Apply a policy"] {
        cluster_page.follow_section(&cluster, section);
    }
    cluster.is_limited();
    cluster.is_in_order();
    // The page waits for the policies, and `is_limited` deletes its own.
    cluster.run("kubectl", &["apply", "-f", "llm-policy.yaml"]);
    // The page names the chart's folder in a clone.
    cluster.run("mkdir", &["-p", "dist/manifests/chart"]);
    cluster.run("bash", &["-c", "tar -xzf weir-*.tgz --strip-components=1 -C dist/manifests/chart"]);
    cluster_page.follow_section(&cluster, "Uninstall");
    ObjectNames::of(&cluster).are_as_before(&before);
}
