//! Disruptions of a cluster under load. Compares the usage that clients received with the usage that was
//! counted, and prints a table for `manifests/OUTAGES.md`.

use crate::nodes::NodeCluster;
use crate::traffic::{MODES, Outcome, Traffic};
use e2e::wait;
use std::fmt;
use std::time::{Duration, Instant};

/// The maximum time between the last answer and the moment when all usage is counted.
const COUNTED: Duration = Duration::from_secs(30);

/// The maximum time for which limits are not checked.
const UNCHECKED: Duration = Duration::from_secs(10);

/// The effect that clients may notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Nothing,
    /// Limits cannot be checked for a while, so each policy's `failureMode` applies.
    Unchecked,
}

/// One disruption and one failure mode.
struct TableRow {
    what: &'static str,
    mode: &'static str,
    expected: Expected,
    took: Duration,
    outcomes: Vec<Outcome>,
    /// `None` if there is no adapter left to ask.
    counted: Option<u64>,
}

/// The table of disruptions.
pub struct Table<'c> {
    cluster: &'c NodeCluster,
    rows: Vec<TableRow>,
}

impl<'c> Table<'c> {
    /// Creates a table without rows.
    pub fn new(cluster: &'c NodeCluster) -> Self {
        Self { cluster, rows: Vec::new() }
    }

    /// Causes a disruption under load, and compares the usage that clients received with the usage that was
    /// counted.
    pub fn play(&mut self, what: &'static str, expected: Expected, happens: impl FnOnce()) {
        let before = self.cluster.counted();
        let (took, outcomes) = self.under_load(what, happens);
        let told: [u64; 2] = outcomes.each_ref().map(|of| of.iter().map(|it| it.tokens).sum());
        let counted = || {
            let now = self.cluster.counted();
            [now[0] - before[0], now[1] - before[1]]
        };
        // The usage of failed requests may be counted as well.
        let all =
            wait::within(COUNTED, || Some(counted()).filter(|all| all[0] >= told[0] && all[1] >= told[1]));
        let all = all.unwrap_or_else(counted);
        self.add(what, expected, took, outcomes, all.map(Some));
    }

    /// Does the same for a disruption that leaves no adapter.
    pub fn play_uninstall(&mut self, happens: impl FnOnce()) {
        let (took, outcomes) = self.under_load("uninstalling", happens);
        self.add("uninstalling", Expected::Nothing, took, outcomes, [None; 2]);
    }

    fn under_load(&self, what: &str, happens: impl FnOnce()) -> (Duration, [Vec<Outcome>; 2]) {
        println!("{what}");
        let traffic = Traffic::start(self.cluster.gateway());
        let began = Instant::now();
        happens();
        let took = began.elapsed();
        (took, traffic.end())
    }

    fn add(
        &mut self,
        what: &'static str,
        expected: Expected,
        took: Duration,
        outcomes: [Vec<Outcome>; 2],
        counted: [Option<u64>; 2],
    ) {
        for ((mode, outcomes), counted) in MODES.into_iter().zip(outcomes).zip(counted) {
            let row = TableRow { what, mode, expected, took, outcomes, counted };
            println!("{row}");
            row.oddities();
            self.rows.push(row);
        }
    }

    /// Fails if a request was wrongly refused or usage was lost.
    pub fn conclude(&self) {
        let wrong: Vec<_> = self.rows.iter().flat_map(TableRow::wrong).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

impl TableRow {
    fn with(&self, is: impl Fn(u16) -> bool) -> usize {
        self.outcomes.iter().filter(|it| is(it.status)).count()
    }

    fn told(&self) -> u64 {
        self.outcomes.iter().map(|it| it.tokens).sum()
    }

    fn oddities(&self) {
        let odd: Vec<_> = self.outcomes.iter().filter(|it| it.status != 200).collect();
        for it in odd.iter().take(3).chain(odd.iter().skip(3).rev().take(3)) {
            println!("  {:.2?}: {} {}", it.at, it.status, it.about.replace('\n', " "));
        }
    }

    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut claim = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("{} ({}): {what}", self.what, self.mode));
            }
        };
        let may_refuse = self.expected == Expected::Unchecked && self.mode == "Deny";
        let refusals = || self.outcomes.iter().filter(|it| it.status == 503).map(|it| it.at);
        let span = refusals().max().unwrap_or_default() - refusals().min().unwrap_or_default();
        claim(span < UNCHECKED, "limits could not be checked for too long");
        claim(self.with(|status| status == 429) == 0, "a request was refused within its limit");
        claim(may_refuse || self.with(|status| status == 503) == 0, "a request was refused with 503");
        claim(self.with(|status| ![200, 429, 503].contains(&status)) == 0, "a request failed");
        claim(self.counted.is_none_or(|counted| counted == self.told()), "usage was lost, or counted twice");
        wrong
    }
}

impl fmt::Display for TableRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, refused) = (self.with(|status| status == 200), self.with(|status| status == 429));
        let (unchecked, failed) =
            (self.with(|status| status == 503), self.with(|status| ![200, 429, 503].contains(&status)));
        let counted = self.counted.map_or_else(|| "-".to_owned(), |counted| counted.to_string());
        write!(
            f,
            "| {} | {} | {:.0?} | {passed} | {refused} | {unchecked} | {failed} | {} | {counted} |",
            self.what,
            self.mode,
            self.took,
            self.told()
        )
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| under load | `failureMode` | took | 200 | 429 | 503 | failed | tokens told | tokens counted |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}
