//! Something is away for a while: what two proxies do meanwhile, one that ran before and one that starts, and how soon both limit
//! again. Each outage is one row of the table in `manifests/OUTAGES.md` for each `failureMode`, and is printed as such.

use crate::adapter::Adapter;
use crate::client::Request;
use crate::probe::{self, HEALED};
use crate::wait;
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The values of `failureMode`, each that of one policy.
const MODES: [&str; 2] = ["Allow", "Deny"];
/// How a request says which of the two policies applies to it.
const MODE: &str = "x-failure-mode";
/// Between two looks at everything that is watched.
const PAUSE: Duration = Duration::from_millis(100);
/// How long requests follow each other without a pause when a node has gone silent.
const BUSY: Duration = Duration::from_secs(10);
/// How long both are watched at least, however long the other one took to start.
const LEAST: Duration = Duration::from_secs(5);
/// Requests that show which adapter a proxy asks.
const SOME: usize = 40;
/// How many requests may be refused, or pass unchecked, when one of two nodes goes silent.
const FEW: usize = 20;

/// How a proxy answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// The request passes, and nobody counts it.
    Unchecked,
    /// 503: the limit cannot be checked.
    Refused,
    /// The limit is enforced.
    Limited,
    /// The same, but for fewer than 20 requests.
    MostlyLimited,
    /// The proxy is not ready, so nobody is sent to it.
    NotReady,
}

use Answers::{Limited, MostlyLimited, NotReady, Refused, Unchecked};

/// What is away, and how proxies answer meanwhile, for each failure mode.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// For the table.
    pub away: &'static str,
    /// The proxy that ran before.
    pub running: [Answers; 2],
    /// The one that starts meanwhile.
    pub starting: [Answers; 2],
    /// How soon it limits after the return; the other one, within [`HEALED`].
    pub starts_within: Duration,
}

impl Outage {
    /// One after which both proxies limit within [`HEALED`].
    pub fn new(away: &'static str, running: [Answers; 2], starting: [Answers; 2]) -> Self {
        Self { away, running, starting, starts_within: HEALED }
    }
}

/// The policy decides.
pub const BY_POLICY: [Answers; 2] = [Unchecked, Refused];
/// The filter's own `failureMode` decides, which is `Allow`.
pub const BY_FILTER: [Answers; 2] = [Unchecked; 2];
/// Nobody notices.
pub const ENFORCED: [Answers; 2] = [Limited; 2];
/// Hardly anybody does.
pub const MOSTLY_ENFORCED: [Answers; 2] = [MostlyLimited; 2];
/// It does not start.
pub const NOT_READY: [Answers; 2] = [NotReady; 2];

/// A gateway whose two proxies are watched.
pub trait Proxies {
    /// For the table.
    const NAME: &'static str;
    /// Where the proxy listens that runs.
    fn running(&self) -> SocketAddr;
    /// Starts another one, and says where it listens once it does.
    fn start_another(&mut self) -> SocketAddr;
    /// Whether requests are sent to it.
    fn other_is_ready(&self) -> bool;
    /// Ends it.
    fn end_other(&mut self);
}

/// How long outages last.
pub fn duration() -> Duration {
    let seconds = std::env::var("WEIR_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

/// Two policies of a Gateway in the namespace `default`, one for each failure mode.
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

/// Which of these adapters this proxy asks most: the loss of another would hardly be noticed.
pub fn busiest(adapters: &[Adapter], proxy: SocketAddr) -> usize {
    let reserves =
        || adapters.iter().map(|adapter| adapter.metric("weir_reserves_total", &[])).collect::<Vec<_>>();
    let before = reserves();
    (0..SOME).for_each(|_| heals(proxy, "Deny"));
    let asked = reserves().into_iter().zip(before).map(|(now, before)| now - before);
    let most = asked.enumerate().max_by(|(_, one), (_, other)| one.total_cmp(other));
    most.map_or(0, |(index, _)| index)
}

/// Runs through it: something goes `away`, and comes `back`.
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

/// A silent node costs most in its first seconds, and more the more requests there are.
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
    /// Whether the proxy starts, when one of two nodes is silent: until a worker has its first plan, the filter's own
    /// `failureMode` decides.
    starts: bool,
    /// Until when that was so.
    unplanned: Duration,
    looks: usize,
    /// When a request was answered otherwise, and how.
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

    /// Waits until requests are answered as they should: what is away is not noticed at once, and a proxy that starts has no
    /// plan at first.
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
            // A busy machine may be too late for one answer of the adapter's, not for two in a row.
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

/// A cell of the table.
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
