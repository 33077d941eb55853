//! Tests how two proxies behave during an outage, one that was already running and one that starts during the
//! outage, and how soon both enforce limits again. For each `failureMode`, prints the outage as a row of the
//! table in `manifests/OUTAGES.md`.

use crate::adapter::Adapter;
use crate::client::Request;
use crate::probe::{self, HEALED};
use crate::wait;
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The values of `failureMode`, each used by one policy.
const MODES: [&str; 2] = ["Allow", "Deny"];
/// The header that selects the policy of a request.
const MODE: &str = "x-failure-mode";
/// The interval of checks.
const PAUSE: Duration = Duration::from_millis(100);
/// How long requests are sent without a pause after a node has gone silent.
const BUSY: Duration = Duration::from_secs(10);
/// The minimum time for which both proxies are watched.
const LEAST: Duration = Duration::from_secs(5);
/// The number of requests that show which adapter a proxy uses.
const SOME: usize = 40;
/// How many requests may be refused or pass unchecked when one of two nodes goes silent.
const FEW: usize = 20;

/// How a proxy answers requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// The request passes uncounted.
    Unchecked,
    /// The request is refused with 503, because the limit cannot be checked.
    Refused,
    /// The limit is enforced.
    Limited,
    /// The limit is enforced, except for fewer than 20 requests.
    MostlyLimited,
    /// The proxy is not ready, so it receives no requests.
    NotReady,
}

use Answers::{Limited, MostlyLimited, NotReady, Refused, Unchecked};

/// An outage of one part, and the expected behaviour of the proxies for each failure mode.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// The name in the table.
    pub away: &'static str,
    /// The proxy that was already running.
    pub running: [Answers; 2],
    /// The proxy that starts during the outage.
    pub starting: [Answers; 2],
    /// How soon the starting proxy enforces limits after the outage. The other one does so within [`HEALED`].
    pub starts_within: Duration,
}

impl Outage {
    /// Creates an outage after which both proxies enforce limits within [`HEALED`].
    pub fn new(away: &'static str, running: [Answers; 2], starting: [Answers; 2]) -> Self {
        Self { away, running, starting, starts_within: HEALED }
    }
}

/// The policy's `failureMode` decides.
pub const BY_POLICY: [Answers; 2] = [Unchecked, Refused];
/// The filter's own `failureMode` decides. It is `Allow`.
pub const BY_FILTER: [Answers; 2] = [Unchecked; 2];
/// The outage has no effect.
pub const ENFORCED: [Answers; 2] = [Limited; 2];
/// The outage has almost no effect.
pub const MOSTLY_ENFORCED: [Answers; 2] = [MostlyLimited; 2];
/// The proxy does not become ready.
pub const NOT_READY: [Answers; 2] = [NotReady; 2];

/// A gateway with two proxies.
pub trait Proxies {
    /// The name in the table.
    const NAME: &'static str;
    /// Returns the address of the running proxy.
    fn running(&self) -> SocketAddr;
    /// Starts another proxy and returns its address.
    fn start_another(&mut self) -> SocketAddr;
    /// Returns whether the other proxy is ready to receive requests.
    fn other_is_ready(&self) -> bool;
    /// Stops the other proxy.
    fn end_other(&mut self);
}

/// Returns the duration of outages.
pub fn duration() -> Duration {
    let seconds = std::env::var("WEIR_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

/// Returns two policies for a Gateway in the namespace `default`, one for each failure mode.
pub fn policies(gateway: &str) -> [String; 2] {
    MODES.map(|mode| {
        let target = json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway });
        let limit = json!({
            "when": [{ "predicate": format!("request.headers['{MODE}'] == '{mode}'") }],
            "rates": [{ "limit": 1_000_000_000, "window": "1h" }],
        });
        json!({
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "TokenRateLimitPolicy",
            "metadata": { "name": mode.to_ascii_lowercase(), "namespace": "default" },
            "spec": { "targetRef": target, "failureMode": mode, "limits": { "all": limit } },
        })
        .to_string()
    })
}

/// Waits until both policies are in force at this proxy.
pub fn is_enforced(at: SocketAddr) {
    MODES.into_iter().for_each(|mode| heals(at, mode));
}

/// Returns the index of the adapter that this proxy uses most. Losing another one would have little effect.
pub fn busiest(adapters: &[Adapter], proxy: SocketAddr) -> usize {
    let reserves =
        || adapters.iter().map(|adapter| adapter.metric("weir_reserves_total", &[])).collect::<Vec<_>>();
    let before = reserves();
    (0..SOME).for_each(|_| heals(proxy, "Deny"));
    let asked = reserves().into_iter().zip(before).map(|(now, before)| now - before);
    let most = asked.enumerate().max_by(|(_, one), (_, other)| one.total_cmp(other));
    most.map_or(0, |(index, _)| index)
}

/// Plays an outage: `away` starts it and `back` ends it.
pub fn play<W: Proxies>(world: &mut W, outage: Outage, away: impl FnOnce(&mut W), back: impl FnOnce(&mut W)) {
    let running = world.running();
    is_enforced(running);
    let went = Instant::now();
    away(world);
    let mut watches: Vec<WatchedProxy> = MODES
        .into_iter()
        .zip(outage.running)
        .map(|(mode, wanted)| WatchedProxy::new(running, mode, wanted))
        .collect();
    if watches.iter().any(WatchedProxy::is_bounded) {
        look_without_pause(&mut watches);
    } else {
        watches.iter_mut().for_each(WatchedProxy::settle);
    }
    let starting = world.start_another();
    let may_start = !outage.starting.contains(&NotReady);
    if may_start {
        wait::until("the proxy that starts", || world.other_is_ready().then_some(()));
    }
    for (mode, wanted) in MODES.into_iter().zip(outage.starting) {
        watches.push(WatchedProxy::new(starting, mode, wanted));
    }
    if watches.iter().any(WatchedProxy::is_bounded) {
        watches.iter_mut().skip(MODES.len()).for_each(|watch| watch.starts = true);
        look_without_pause(&mut watches);
    } else if may_start {
        watches.iter_mut().skip(MODES.len()).for_each(WatchedProxy::settle);
    }
    let started = Instant::now();
    while went.elapsed() < duration() || started.elapsed() < LEAST {
        assert_eq!(
            world.other_is_ready(),
            may_start,
            "{}: the readiness of the proxy that starts",
            outage.away
        );
        watches.iter_mut().for_each(WatchedProxy::look);
        std::thread::sleep(PAUSE);
    }
    back(world);
    let returned = Instant::now();
    let took: Vec<Duration> = watches
        .iter()
        .map(|watch| {
            heals(watch.address, watch.mode);
            returned.elapsed()
        })
        .collect();
    for (row, mode) in MODES.into_iter().enumerate() {
        println!(
            "| {} | {} | {mode} | {} | {} | {:.2?} | {:.2?} |",
            outage.away,
            W::NAME,
            watches[row],
            watches[row + 2],
            took[row],
            took[row + 2]
        );
    }
    let soon = [HEALED, HEALED, outage.starts_within, outage.starts_within];
    assert!(took.iter().zip(soon).all(|(took, soon)| *took < soon), "{}: {took:?}", outage.away);
    watches.iter().for_each(WatchedProxy::conclude);
    for of_proxy in watches.chunks(MODES.len()) {
        let others: Vec<_> = of_proxy.iter().flat_map(|watch| &watch.others).collect();
        assert!(others.len() < FEW, "{}: {} of one proxy: {others:?}", outage.away, others.len());
    }
    world.end_other();
}

/// A silent node has the largest effect in the first seconds, and under load.
fn look_without_pause(watches: &mut [WatchedProxy]) {
    let end = Instant::now() + BUSY;
    while Instant::now() < end {
        watches.iter_mut().for_each(WatchedProxy::look);
    }
}

/// Waits until limits are in force.
fn heals(at: SocketAddr, mode: &str) {
    let mut last = String::new();
    let healed = wait::within(2 * wait::DEADLINE, || match request(mode).try_send(at) {
        Ok(answer) => {
            last = format!("{} {}", answer.status, answer.text());
            (probe::told(&answer) == probe::LIMITED).then_some(())
        }
        Err(error) => {
            last = error.to_string();
            None
        }
    });
    assert!(healed.is_some(), "limits are not in force ({mode}); the last answer was {last}");
}

fn request(mode: &str) -> Request {
    probe::alice().header(MODE, mode)
}

/// One proxy and one failure mode.
struct WatchedProxy {
    address: SocketAddr,
    mode: &'static str,
    wanted: Answers,
    since: Instant,
    /// Whether the proxy starts while one of two nodes is silent. Until a worker has its first plan, the
    /// filter's own `failureMode` decides.
    starts: bool,
    /// How long the worker had no plan.
    unplanned: Duration,
    looks: usize,
    /// When and how requests were answered unexpectedly.
    others: Vec<(Duration, String)>,
}

impl WatchedProxy {
    fn new(address: SocketAddr, mode: &'static str, wanted: Answers) -> Self {
        Self {
            address,
            mode,
            wanted,
            since: Instant::now(),
            starts: false,
            unplanned: Duration::ZERO,
            looks: 0,
            others: Vec::new(),
        }
    }

    /// Waits until requests are answered as expected. A proxy does not notice an outage at once, and a new
    /// proxy has no plan at first.
    fn settle(&mut self) {
        let mut last = String::new();
        let settled = wait::within(HEALED, || {
            last = self.ask();
            self.is_wanted(&last).then_some(())
        });
        assert!(
            settled.is_some(),
            "{} ({}): wanted {:?}, the last answer was {last}",
            self.address,
            self.mode,
            self.wanted
        );
        self.since = Instant::now();
    }

    fn look(&mut self) {
        if self.wanted == NotReady {
            return;
        }
        let mut answer = self.ask();
        if self.wanted == Limited && !self.is_wanted(&answer) {
            // On a busy machine, one reply from the adapter may be late, but not two in a row.
            answer = self.ask();
        }
        self.looks += 1;
        if self.starts && answer == "unchecked" && self.since.elapsed() < HEALED {
            self.unplanned = self.since.elapsed();
        } else if !self.is_wanted(&answer) {
            self.others.push((self.since.elapsed(), answer));
            assert!(
                self.is_bounded(),
                "{} ({}): wanted {:?}: {:?}",
                self.address,
                self.mode,
                self.wanted,
                self.others
            );
        }
    }

    fn is_bounded(&self) -> bool {
        self.wanted == MostlyLimited
    }

    fn ask(&self) -> String {
        match request(self.mode).try_send(self.address) {
            Ok(answer) => match probe::told(&answer) {
                probe::LIMITED => "limited".to_owned(),
                (200, None) => "unchecked".to_owned(),
                (503, _) => "refused".to_owned(),
                _ => format!("{} {}", answer.status, answer.text()),
            },
            Err(error) => error.to_string(),
        }
    }

    fn is_wanted(&self, answer: &str) -> bool {
        answer
            == match self.wanted {
                Unchecked => "unchecked",
                Refused => "refused",
                Limited | MostlyLimited => "limited",
                NotReady => return true,
            }
    }

    fn conclude(&self) {
        assert!(self.looks > 0 || self.wanted == NotReady, "nobody looked");
    }
}

/// Formats a cell of the table.
impl std::fmt::Display for WatchedProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.wanted {
            Unchecked => f.write_str("200"),
            Refused => f.write_str("503"),
            Limited => f.write_str("limits"),
            NotReady => f.write_str("not ready"),
            MostlyLimited => {
                write!(f, "limits")?;
                if self.starts {
                    write!(f, " after {:.1?} without a plan (200)", self.unplanned)?;
                }
                match self.others.last() {
                    Some((last, _)) => write!(f, "; {} not, the last after {last:.1?}", self.others.len()),
                    None => Ok(()),
                }
            }
        }
    }
}
