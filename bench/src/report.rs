//! Renders the table, and the targets that the results meet.

use crate::case::{Case, Filter, weir};
use crate::{RATE, load};
use anyhow::Result;
use e2e::artefacts;
use std::fmt::Write;
use std::time::Duration;

/// The results of one round of one case. Times are in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// Requests per second in the closed loop.
    pub throughput: f64,
    /// Envoy's CPU time per request in the closed loop.
    pub envoy_cpu: f64,
    /// The adapter's CPU time per request in the closed loop.
    pub adapter_cpu: f64,
    /// Reserve and Commit messages per 100 requests in the closed loop.
    pub reserves: f64,
    pub commits: f64,
    /// Envoy's CPU time per request at the fixed rate.
    pub envoy_cpu_fixed: f64,
    /// The median latency at the fixed rate.
    pub p50: f64,
    /// The 99th percentile of the latency at the fixed rate.
    pub p99: f64,
}

/// A row of the table.
pub struct Row {
    pub case: Case,
    pub median: Round,
    pub memory: u64,
    pub module: Option<u64>,
    pub ready: Duration,
}

impl Round {
    /// Returns the median of each value.
    pub fn median(rounds: &[Round]) -> Round {
        let of = |field: fn(&Round) -> f64| median(rounds.iter().map(field).collect());
        Round {
            throughput: of(|round| round.throughput),
            envoy_cpu: of(|round| round.envoy_cpu),
            adapter_cpu: of(|round| round.adapter_cpu),
            reserves: of(|round| round.reserves),
            commits: of(|round| round.commits),
            envoy_cpu_fixed: of(|round| round.envoy_cpu_fixed),
            p50: of(|round| round.p50),
            p99: of(|round| round.p99),
        }
    }
}

/// Returns the median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    if values.len() % 2 == 1 { at(middle) } else { (at(middle.saturating_sub(1)) + at(middle)) / 2.0 }
}

/// Returns the whole report.
pub fn render(rows: &[Row], rounds: usize, adapter_memory: u64) -> String {
    let mut text = format!(
        "# What Weir costs\n\n`make bench` on {}, {}: medians of {rounds} interleaved rounds. Envoy has one \
         worker. {} connections send 560-byte requests and get 1.2 kB responses. CPU times are in microseconds per request \
         in a closed loop (in brackets: at {RATE} requests/s). Latencies are in microseconds at {RATE} requests/s. *Above* \
         is the additional CPU time compared with Envoy alone. *Calls* are the Reserve and Commit messages per 100 requests \
         in the closed loop.\n\n",
        std::env::var("BENCH_DATE").unwrap_or_else(|_| "an unknown day".into()),
        machine(),
        load::CONNECTIONS,
    );
    text.push_str(
        "| case | requests/s | Envoy CPU | above | adapter CPU | calls | p50 | p99 | memory MB | module kB | ready ms |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let module = row.module.map_or_else(|| "-".into(), |bytes| (bytes / 1000).to_string());
        let m = &row.median;
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} ({:.0}) | {:.0} | {:.0} | {:.0} + {:.0} | {:.0} | {:.0} | {} | {module} | {} |",
            row.case.title(),
            m.throughput,
            m.envoy_cpu,
            m.envoy_cpu_fixed,
            above(rows, row),
            m.adapter_cpu,
            m.reserves,
            m.commits,
            m.p50,
            m.p99,
            row.memory / 1_000_000,
            row.ready.as_millis(),
        );
    }
    let _ = writeln!(text, "\nThe adapter uses {} MB of memory.\n", adapter_memory / 1_000_000);
    targets(rows, &mut text);
    text
}

fn above(rows: &[Row], row: &Row) -> f64 {
    let alone = rows.iter().find(|row| row.case.filter == Filter::None);
    row.median.envoy_cpu - alone.map_or(f64::NAN, |alone| alone.median.envoy_cpu)
}

fn targets(rows: &[Row], text: &mut String) {
    let nothing = Filter::Weir { gateway: "nothing", header: false };
    let nobody = Filter::Weir { gateway: "elsewhere", header: false };
    let ratios = [
        ("one limit / the Wasm floor", weir("one"), Filter::Floor, 1.3),
        ("one limit / Envoy's check and report", weir("one"), Filter::RateLimit { report: true }, 1.0),
        ("no policy / an empty Wasm filter", nothing, Filter::Empty, 1.3),
        ("no limit for the path, no header to take out / an empty Wasm filter", nobody, Filter::Empty, 1.3),
        ("the same / a Wasm filter that asks for the path", nobody, Filter::Header, 1.3),
        ("no limit for the path / an empty Wasm filter", weir("elsewhere"), Filter::Empty, 1.3),
        ("no limit for who is asking / an empty Wasm filter", weir("none"), Filter::Empty, 1.3),
        ("eight limits / one limit", weir("eight"), weir("one"), 1.3),
    ];
    text.push_str("| Envoy's CPU time above Envoy alone | ratio | wanted | |\n|---|---|---|---|\n");
    let of = |filter| {
        rows.iter().find(|row| row.case.filter == filter && !row.case.before).map(|row| above(rows, row))
    };
    for (name, mine, theirs, most) in ratios {
        if let (Some(mine), Some(theirs)) = (of(mine), of(theirs)) {
            let ratio = mine / theirs;
            let verdict = if ratio <= most { "met" } else { "missed" };
            let _ = writeln!(text, "| {name} | {ratio:.2} | at most {most:.1} | {verdict} |");
        }
    }
}

/// Writes a section with this heading into `bench/RESULTS.md`. It replaces the old section. If there is none, it is
/// inserted before the section about the cost of counting, which another benchmark writes (`cargo bench -p
/// limitador-adapter --bench ledger`).
pub fn keep(heading: &str, section: &str) -> Result<()> {
    let file = artefacts::root().join("bench/RESULTS.md");
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    let mut sections: Vec<String> = Vec::new();
    for line in before.lines() {
        match sections.last_mut() {
            Some(open) if !line.starts_with("## ") => *open = format!("{open}\n{line}"),
            _ => sections.push(line.to_owned()),
        }
    }
    let section = section.trim_end().to_owned() + "\n";
    match sections.iter().position(|other| other.starts_with(heading)) {
        Some(at) => sections.splice(at..=at, [section]).for_each(drop),
        None => sections.insert(sections.len().saturating_sub(1), section),
    }
    Ok(std::fs::write(file, sections.join("\n").trim_end().to_owned() + "\n")?)
}

/// Describes the machine in general words.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!("{cores} cores of {}", model.map_or("an unknown processor", |(_, model)| model.trim()))
}
