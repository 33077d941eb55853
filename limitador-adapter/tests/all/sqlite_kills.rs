//! A real adapter with its counters in a file, killed with SIGKILL under load. Each caller repeats its commit until
//! it is acknowledged, as filters do. In the end, each exchange must be charged exactly once. `KILLS=1000` kills
//! more often, and `SEED` repeats the pauses.

use crate::binary::{adapter, folder};
use crate::server::{POLICY, commit, descriptor, reserve};
use e2e::client::Request;
use e2e::process::{Process, free_port};
use e2e::wait;
use limitador_adapter::grpc::services::kuadrant::service::ratelimit::v1::rate_limit_service_client::RateLimitServiceClient;
use protocol::wire::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

/// The kills without `KILLS`.
const KILLS: u64 = 10;

const CALLERS: u64 = 16;

/// The users of each caller. The bucket of the limit `all` is that of all callers.
const USERS: u64 = 5;

struct World {
    folder: TempDir,
    process: Process,
    grpc: u16,
    http: SocketAddr,
}

impl World {
    fn start() -> Self {
        let policy = POLICY.replace("limit: 3,", "limit: 1000000000,").replace("window: 60s", "window: 24h");
        let folder = folder(&[("llm.yaml", &policy.replace("limit: 1000,", "limit: 1000000000,"))]);
        let (grpc, http) = (free_port(), ([127, 0, 0, 1], free_port()).into());
        let process = serve(&folder, grpc, http);
        let world = Self { folder, process, grpc, http };
        world.wait();
        world
    }

    fn wait(&self) {
        wait::until("the adapter", || {
            Request::get("/readyz").try_send(self.http).ok().filter(|answer| answer.status == 200)
        });
    }

    fn kill(&mut self, pause: Duration) {
        std::thread::sleep(pause);
        self.process.kill();
        self.process = serve(&self.folder, self.grpc, self.http);
        self.wait();
    }

    /// Returns what each counter has charged, by limit, unit and user.
    fn counters(&self) -> BTreeMap<(String, String, String), u64> {
        let counters: Value = Request::get("/api/counters").send(self.http).json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let one = |counter: &Value| {
            let user = text(&counter["counters"]["auth.identity.userid"]);
            ((text(&counter["limit"]), text(&counter["unit"]), user), counter["used"].as_u64().unwrap())
        };
        counters.as_array().unwrap().iter().map(one).filter(|(_, used)| *used > 0).collect()
    }
}

fn serve(folder: &TempDir, grpc: u16, http: SocketAddr) -> Process {
    let mut command = adapter();
    command.args(["serve", "--policies", "llm.yaml"]).current_dir(folder.path());
    command.args(["--grpc-listen", &format!("127.0.0.1:{grpc}"), "--http-listen", &http.to_string()]);
    Process::start("the adapter", command, &folder.path().join("log"))
}

/// Returns descriptors of a user's tokens and requests, and of everybody's tokens.
fn descriptors(user: &str, tokens: u64, requests: u64) -> Vec<RateLimitDescriptor> {
    let mut all = vec![
        descriptor("default/llm/free", Some(("tokens", "3600s")), Some(tokens)),
        descriptor("default/llm/free", Some(("requests", "86400s")), Some(requests)),
        descriptor("default/llm/all", Some(("tokens", "86400s")), Some(tokens)),
    ];
    for entry in all.iter_mut().flat_map(|descriptor| &mut descriptor.entries) {
        if entry.key == "auth.identity.userid" {
            user.clone_into(&mut entry.value);
        }
    }
    all
}

/// What the callers have been told.
#[derive(Default)]
struct Account {
    tokens: AtomicU64,
    requests: AtomicU64,
}

/// Makes exchanges until it is told to stop. Every fourth fails, so its request is taken back.
async fn call(caller: u64, channel: Channel, accounts: Arc<Vec<Account>>, stops: Arc<AtomicBool>) {
    let mut client = RateLimitServiceClient::new(channel);
    for number in 0.. {
        if stops.load(Ordering::Relaxed) {
            return;
        }
        let place = caller * USERS + number % USERS;
        let (user, id) = (format!("user-{place}"), format!("{caller}-{number}"));
        // A filter whose Reserve fails goes on, and its commit is charged in full.
        drop(client.reserve(reserve(&id, descriptors(&user, 40, 1))).await);
        let (tokens, requests) = if number.is_multiple_of(4) { (0, 0) } else { (10 + number % 7, 1) };
        while client.commit(commit(&id, descriptors(&user, tokens, requests))).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let account = &accounts[usize::try_from(place).unwrap()];
        account.tokens.fetch_add(tokens, Ordering::Relaxed);
        account.requests.fetch_add(requests, Ordering::Relaxed);
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn kills_lose_no_acknowledged_charge_and_double_none() {
    let seed = variable("SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = variable("KILLS").unwrap_or(KILLS);
    eprintln!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::start();
    let accounts: Arc<Vec<Account>> = Arc::new((0..CALLERS * USERS).map(|_| Account::default()).collect());
    let stops = Arc::<AtomicBool>::default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let channel = Endpoint::try_from(format!("http://127.0.0.1:{}", world.grpc)).unwrap().connect_lazy();
        callers.spawn(call(caller, channel, Arc::clone(&accounts), Arc::clone(&stops)));
    }
    for _ in 0..kills {
        world.kill(Duration::from_micros(random.u64(0..80_000)));
    }
    stops.store(true, Ordering::Relaxed);
    runtime.block_on(callers.join_all());
    // Everything is acknowledged, so it is in the file.
    world.kill(Duration::ZERO);
    let mut wanted = BTreeMap::new();
    let mut sum = 0;
    for (place, account) in accounts.iter().enumerate() {
        let (tokens, requests) =
            (account.tokens.load(Ordering::Relaxed), account.requests.load(Ordering::Relaxed));
        sum += tokens;
        let of = |unit: &str| ("free".to_owned(), unit.to_owned(), format!("user-{place}"));
        wanted.extend([(of("tokens"), tokens), (of("requests"), requests)]);
    }
    wanted.insert(("all".to_owned(), "tokens".to_owned(), String::new()), sum);
    wanted.retain(|_, used| *used > 0);
    eprintln!("{kills} kills, {sum} tokens in {} counters", wanted.len());
    assert!(sum > 0);
    assert_eq!(world.counters(), wanted, "SEED={seed}\n{}", world.process.log());
}
