use crate::{code, codes, docs, head, page, table};
use engine::metric::table::METRICS as OF_FILTER;
use limitador_adapter::ledger::{LedgerSize, StorageBytes};
use limitador_adapter::metrics::{AdapterMetrics, METRICS as OF_ADAPTER, MetricKind, StorageState};
use policy::model::{Threshold, Unit};
use std::collections::BTreeSet;
use std::time::Duration;

#[test]
fn the_page_of_metrics() {
    let mut text = head(
        "Metrics",
        "[Operate](../operate.md#metrics) says what to do when one of them moves.\n\n\
         ## The filter\n\n\
         Envoy's `/stats` shows them as `wasmcustom.NAME`, and `/stats/prometheus` as `NAME`. Labels are part of the name: each \
         follows it with its value, after a dot, as in `weir_refused.policy.default/llm-token-limits.limit.free`. The `stats_tags` \
         in `manifests/envoy/envoy.yaml` turn them into Prometheus labels.\n",
    );
    text += &table(
        ["Name", "Type", "Labels", "Meaning"],
        OF_FILTER.iter().map(|metric| {
            let kind = if metric.is_gauge { "gauge" } else { "counter" };
            [code(metric.name), kind.into(), codes(metric.labels.iter().copied()), metric.help.into()]
        }),
    );
    text += "\n## The adapter\n\nThe adapter serves them at `/metrics` on its HTTP port, in Prometheus' text format.\n\n";
    text += &table(
        ["Name", "Type", "Labels", "Meaning"],
        OF_ADAPTER.iter().map(|metric| {
            let kind = match metric.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram => "histogram",
            };
            [code(metric.name), kind.into(), codes(metric.labels.iter().copied()), metric.help.into()]
        }),
    );
    page("reference/metrics.md", &text);
}

/// Exports every metric of the adapter once.
fn exported() -> BTreeSet<String> {
    let metrics = AdapterMetrics::new().unwrap();
    metrics.last_heard("gateways").set(1.0);
    metrics.rivals().set(0.0);
    metrics.usage_store_up().set(1.0);
    metrics.unknown_gateways().set(0.0);
    metrics.refused("p", "l").increment(1);
    metrics.excused("p", "l").increment(1);
    metrics.overflowed("p", "l").increment(1);
    metrics.charged("p", "l", Unit::Tokens).increment(1);
    metrics.warned("p", "l", Unit::Tokens, Threshold::of_percent(80).unwrap()).increment(1);
    metrics.unknown_limits("Reserve").increment(1);
    metrics.plan_bytes("g").set(1.0);
    metrics.plan_version("g").set(1.0);
    metrics.latency("Reserve").record(0.001);
    metrics.upkeep();
    let size = LedgerSize {
        settled: Some(1),
        bytes: Some(StorageBytes { used: 1, most: 2 }),
        ..LedgerSize::default()
    };
    let since = Some(Duration::from_secs(1));
    let state = StorageState { size: Some(size), fault: None, since };
    let text = metrics.render(&state);
    let name = |line: &str| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned);
    text.lines().filter_map(name).collect()
}

#[test]
fn every_metric_that_the_adapter_exports_is_declared_and_the_other_way_round() {
    let declared: BTreeSet<String> = OF_ADAPTER.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(exported(), declared);
}

#[test]
fn operators_learn_what_to_do_about_every_metric() {
    let operate = std::fs::read_to_string(docs().join("operate.md")).unwrap();
    let names = OF_FILTER.iter().map(|metric| metric.name).chain(OF_ADAPTER.iter().map(|metric| metric.name));
    let missing: Vec<_> = names.filter(|name| !operate.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/operate.md lacks {missing:?}");
}
