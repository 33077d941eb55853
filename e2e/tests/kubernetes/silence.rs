//! A connection to the API server when the peer silently disappears.

use super::routes::requests;
use super::{gateway, policy, route};
use e2e::adapter::Adapter;
use e2e::cluster::Cluster;
use e2e::wait;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Forwards bytes until it is silenced. After that, open connections stay open, but no bytes pass.
struct Passage {
    port: u16,
    era: Arc<AtomicUsize>,
}

impl Passage {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let passage = Self { port: listener.local_addr().unwrap().port(), era: Arc::default() };
        let era = Arc::clone(&passage.era);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (era, born) = (Arc::clone(&era), era.load(Ordering::SeqCst));
                    std::thread::spawn(move || pass(from, to, &era, born));
                }
            }
        });
        passage
    }

    fn goes_silent(&self) {
        self.era.fetch_add(1, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, era: &AtomicUsize, born: usize) {
    let mut buffer = [0; 16_384];
    while let Ok(length) = from.read(&mut buffer) {
        if era.load(Ordering::SeqCst) != born {
            // The end of the connection is not forwarded either, so the peer does not notice it.
            if length == 0 {
                std::thread::park();
            }
            continue;
        }
        if length == 0 || to.write_all(&buffer[..length]).is_err() {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
    }
}

#[test]
fn a_connection_that_went_silent_is_noticed_within_half_a_minute() {
    let cluster = Cluster::start();
    cluster.install();
    let passage = Passage::to(cluster.port());
    let adapter = Adapter::start_in_cluster(&cluster.kubeconfig_at(passage.port, "weir-system"), &[]);
    cluster.apply(&gateway("llm"));
    cluster.apply(&route("chat", "llm", json!([{}])));
    let heard = |resource: &str| {
        let resource = format!("resource=\"{resource}\"");
        adapter.metric("weir_kubernetes_last_heard_timestamp_seconds", &[&resource])
    };
    let before = heard("tokenratelimitpolicies");
    assert!(before > 1.7e9 && heard("gateways") > 1.7e9, "{before}");
    passage.goes_silent();
    let silent = Instant::now();
    cluster.apply(&policy("late", "Gateway", "llm", requests("all", 100)));
    let known = wait::within(Duration::from_secs(40), || {
        adapter.policies().to_string().contains("default/late").then_some(())
    });
    println!("the policy was known {:?} after the connections had gone silent", silent.elapsed());
    assert!(known.is_some() && silent.elapsed() < Duration::from_secs(30), "{}", adapter.log());
    assert!(heard("tokenratelimitpolicies") > before);
}
