//! Policies that the API server itself rejects, and the path of each error.

use e2e::adapter::Adapter;
use e2e::artefacts;
use e2e::cluster::Cluster;
use e2e::wait;
use serde_json::{Value, json};
use std::io::Write;
use std::process::Command;

fn policy(spec: Value) -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "TokenRateLimitPolicy",
        "metadata": { "name": "tested", "namespace": "default" },
        "spec": spec,
    })
}

fn good() -> Value {
    json!({
        "targetRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "llm" },
        "limits": { "free": { "rates": [{ "limit": 100, "window": "1h" }] } },
    })
}

/// Returns the valid policy with this rate.
fn rate(rate: Value) -> Value {
    rates(json!([rate]))
}

fn rates(rates: Value) -> Value {
    let mut spec = good();
    spec["limits"]["free"]["rates"] = rates;
    spec
}

/// Returns the valid policy with one field set.
fn with(pointer: &str, value: Value) -> Value {
    let mut spec = good();
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer has a slash");
    spec.pointer_mut(parent).expect("the parent is there")[field] = value;
    spec
}

fn without(field: &str) -> Value {
    let mut spec = good();
    spec.as_object_mut().expect("an object").remove(field);
    spec
}

/// Returns one example for each rule of the schema, with its message.
fn bad() -> Vec<(Value, &'static str)> {
    let (target, limits) = (good()["targetRef"].clone(), good()["limits"].clone());
    let extraction = json!({ "response": { "totalTokens": ["/a"] } });
    let beside = |mut spec: Value| {
        (spec["targetRef"], spec["usage"]) = (target.clone(), json!({ "pointers": { "total": "/b" } }));
        spec
    };
    let usd = json!({ "limit": "5.00", "period": "Day", "unit": "usd" });
    let price = json!({ "model": "gpt-4o*", "input": "2.50", "output": "10.00" });
    vec![
        (without("targetRef"), "takes exactly one of targetRef and targetRefs"),
        (with("/targetRefs", json!([target])), "takes exactly one of targetRef and targetRefs"),
        (
            json!({
                "targetRefs": [target, { "group": target["group"], "kind": "HTTPRoute", "name": "llm" }],
                "limits": limits,
            }),
            "targets must be all Gateways or all routes",
        ),
        (without("limits"), "takes exactly one of limits, defaults and overrides"),
        (
            with("/defaults", json!({ "limits": limits })),
            "takes exactly one of limits, defaults and overrides",
        ),
        (
            json!({ "targetRef": good()["targetRef"], "when": [{ "predicate": "true" }], "overrides": { "limits": limits } }),
            "when is valid only with limits",
        ),
        (with("/limits", json!({})), "spec.limits in body should have at least 1 properties"),
        (with("/limits/a b", limits["free"].clone()), "the name of a limit has"),
        (with("/limits/-a", limits["free"].clone()), "the name of a limit has"),
        (rates(json!([])), "spec.limits.free.rates in body should have at least 1 items"),
        (rate(json!({ "window": "1h" })), "takes exactly one of limit and limitFrom"),
        (
            rate(json!({ "limit": 1, "limitFrom": "1", "window": "1h" })),
            "takes exactly one of limit and limitFrom",
        ),
        (rate(json!({ "limit": 1 })), "takes exactly one of window and period"),
        (
            rate(json!({ "limit": 1, "window": "1h", "period": "Day" })),
            "takes exactly one of window and period",
        ),
        (rate(json!({ "limit": 1, "period": "Day", "windowType": "Sliding" })), "windowType requires window"),
        (rate(json!({ "limit": 1, "window": "1h", "windowType": "Rolling" })), "windowType"),
        (
            rate(json!({ "limit": 1, "window": "1h", "timeZone": "Europe/Berlin" })),
            "timeZone requires period",
        ),
        (with("/limits/free/counterKey", json!("a/b")), "counterKey"),
        (rate(json!({ "limit": 1, "window": "1h", "unit": "concurrency" })), "concurrency takes neither"),
        (rate(json!({ "limit": 1, "unit": "concurrency", "cost": "1" })), "concurrency has no cost"),
        (rate(json!({ "limit": -1, "window": "1h" })), "spec.limits.free.rates[0].limit"),
        (rate(json!({ "limit": 1.5, "window": "1h" })), "spec.limits.free.rates[0].limit"),
        (rate(json!({ "limit": "5.00", "window": "1h" })), "only usd may be written as a text"),
        (rate(json!({ "limit": "five", "unit": "usd", "period": "Day" })), "spec.limits.free.rates[0].limit"),
        (
            rate(json!({ "limit": "0.0000001", "unit": "usd", "period": "Day" })),
            "spec.limits.free.rates[0].limit",
        ),
        (rate(json!({ "limit": 1, "window": "1y" })), "spec.limits.free.rates[0].window"),
        (rate(json!({ "limit": 1, "window": "" })), "spec.limits.free.rates[0].window"),
        (rate(json!({ "limit": 1, "window": "0h0m" })), "must be at least 1s"),
        (rate(json!({ "limit": 1, "period": "Decade" })), "spec.limits.free.rates[0].period"),
        (rate(json!({ "limit": 1, "window": "1h", "unit": "words" })), "spec.limits.free.rates[0].unit"),
        (rate(json!({ "limit": 1, "window": "1h", "until": "later" })), "unknown field"),
        (
            rates(json!([{ "limit": 1, "window": "1h" }, { "limit": 2, "window": "1h", "unit": "tokens" }])),
            "two rates count the same thing",
        ),
        (with("/limits/free/outputCap", json!("Maybe")), "outputCap"),
        (with("/limits/free/overrun", json!("Stop")), "overrun"),
        (with("/limits/free/enforceWhen", json!("")), "enforceWhen"),
        (with("/limits/free/counters", json!([{}])), "spec.limits.free.counters[0].expression"),
        (with("/limits/free/when", json!([{ "predicate": "" }])), "spec.limits.free.when[0].predicate"),
        (with("/failureMode", json!("Maybe")), "spec.failureMode"),
        (with("/targetRef/kind", json!("Service")), "spec.targetRef.kind"),
        (with("/targetRef/group", json!("")), "spec.targetRef.group"),
        (with("/targetRef/name", json!("")), "spec.targetRef.name"),
        (with("/targetRef/namespace", json!("other")), "unknown field"),
        (with("/usage", json!({ "onMissing": "Guess" })), "spec.usage.onMissing"),
        (with("/usage", json!({ "streamUsage": "Guess" })), "spec.usage.streamUsage"),
        (with("/usage", json!({ "pointers": { "input": "a" } })), "spec.usage.pointers.input"),
        (with("/usage", json!({ "pointers": { "cached": "/a" } })), "takes total, or input and output"),
        (
            beside(json!({ "limits": limits, "dataExtraction": extraction })),
            "usage.pointers and dataExtraction",
        ),
        (
            beside(json!({ "defaults": { "limits": limits, "dataExtraction": extraction } })),
            "usage.pointers and dataExtraction",
        ),
        (
            json!({ "targetRef": target, "defaults": { "limits": limits }, "dataExtraction": extraction }),
            "dataExtraction is valid only with limits",
        ),
        (
            json!({ "targetRef": target, "defaults": { "limits": limits }, "tokenCompute": "tokens.totalTokens" }),
            "tokenCompute is valid only with limits",
        ),
        (with("/dataExtraction", json!({ "response": { "a-b": ["/a"] } })), "the name of a count"),
        (rate(usd.clone()), "a rate in usd requires prices or a cost"),
        (
            json!({ "targetRef": target, "overrides": { "limits": { "free": { "rates": [usd] } } } }),
            "a rate in usd requires prices or a cost",
        ),
        (with("/prices", json!([price, price])), "two prices are for the same model"),
        (
            json!({ "targetRef": target, "limits": { "free": {
                "reservation": { "maxShare": "20%" },
                "rates": [{ "limit": 1, "window": "1h", "unit": "requests" }],
            } } }),
            "reservation.maxShare needs a rate of tokens",
        ),
        (
            json!({ "targetRef": target, "limits": { "free": {
                "reservation": { "onLapse": "Release" },
                "rates": [{ "limit": 1, "unit": "concurrency" }],
            } } }),
            "reservation.onLapse needs a rate of tokens",
        ),
        (
            json!({ "targetRef": target, "limits": { "free": {
                "reservation": { "maxShare": "0%" }, "rates": [{ "limit": 1, "window": "1h" }],
            } } }),
            "must be above 0% and at most 100%",
        ),
        (
            json!({ "targetRef": target, "limits": { "free": {
                "warnAt": ["80%"], "rates": [{ "limit": 1, "unit": "concurrency" }],
            } } }),
            "warnAt needs a rate other than concurrency",
        ),
        (with("/limits/free/warnAt", json!(["80%", "95%", "80%"])), "two thresholds are the same"),
        (with("/limits/free/warnAt", json!(["101%"])), "spec.limits.free.warnAt[0]"),
        (
            with("/limits/free/warnAt", json!([])),
            "spec.limits.free.warnAt in body should have at least 1 items",
        ),
        (
            json!({ "targetRef": target, "limits": { "free": {
                "outputCap": "Inject", "rates": [{ "limit": 1, "window": "1h", "unit": "requests" }],
            } } }),
            "outputCap needs a rate of tokens",
        ),
        (
            json!({ "targetRef": target, "limits": { "free": {
                "overrun": "Cut", "rates": [{ "limit": 1, "window": "1h", "unit": "requests" }],
            } } }),
            "overrun needs a rate of tokens",
        ),
        (
            with("/limits/free/softSignal", json!({ "headers": [{ "name": "x-tier", "value": "small" }] })),
            "softSignal goes with boundary: Soft",
        ),
        (
            json!({ "targetRef": target, "limits": { "free": {
                "boundary": "Soft", "overrun": "Cut", "rates": [{ "limit": 1, "window": "1h" }],
            } } }),
            "boundary: Soft takes neither overrun: Cut nor outputCap: Inject",
        ),
        (with("/onExceeded", json!({ "headers": { "x a": "b" } })), "is not a valid header name"),
        (with("/onExceeded", json!({ "headers": { "Content-Length": "0" } })), "is not a valid header name"),
        (
            with("/onExceeded", json!({ "headers": { "x-a": "a\nb" } })),
            "header values must not contain control characters",
        ),
        (with("/prices", json!([{ "model": "*", "input": "2,50", "output": "1" }])), "spec.prices[0].input"),
        (with("/onExceeded", json!({ "status": 200 })), "spec.onExceeded.status"),
        (with("/limts", json!({})), "unknown field"),
    ]
}

/// Returns the message of each CEL rule in the definition.
fn rules() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        let rules = value["x-kubernetes-validations"].as_array().into_iter().flatten();
        found.extend(rules.filter_map(|rule| Some(rule["message"].as_str()?.to_owned())));
        match value {
            Value::Object(fields) => fields.values().for_each(|value| collect(value, found)),
            Value::Array(items) => items.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let file = artefacts::root().join("manifests/crds/tokenratelimitpolicies.yaml");
    let definition: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let mut found = Vec::new();
    collect(&definition, &mut found);
    assert!(found.len() > 10, "{found:?}");
    found
}

/// Returns a policy that uses every field, including fields that are not supported yet.
fn every_field() -> Value {
    json!({
        "targetRef": { "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "llm", "sectionName": "chat" },
        "when": [{ "predicate": "true" }],
        "failureMode": "Deny",
        "usage": { "onMissing": "Hold", "streamUsage": "Leave", "pointers": { "input": "/a/b", "total": "/c" } },
        "prices": [{ "model": "gpt-4o*", "input": "2.50", "cachedInput": "1.25", "output": "10.00" }],
        "onExceeded": { "status": 429, "headers": { "x-a": "b" }, "body": "'no'" },
        "limits": {
            "per_user": {
                "when": [{ "predicate": "true" }],
                "counters": [{ "expression": "auth.identity.userid" }],
                "reservation": { "amount": "1", "ttl": "15m" },
                "enforceWhen": "true",
                "outputCap": "Inject",
                "overrun": "Cut",
                "rates": [
                    { "limit": 60, "window": "1m", "unit": "requests" },
                    { "limit": "5.00", "period": "Day", "unit": "usd" },
                    { "limit": 50, "period": "Month", "unit": "usd" },
                    { "limit": 3, "unit": "concurrency" },
                    { "limitFrom": "auth.identity.tpm", "window": "1m", "cost": "usage.total - usage.cached" },
                    { "limit": 5, "window": "1m", "unit": "inputTokens" },
                ],
            },
        },
    })
}

#[test]
fn the_schema_takes_what_is_good_and_refuses_each_mistake_with_its_path() {
    let cluster = Cluster::start();
    cluster.define();
    let targets = ["HTTPRoute", "GRPCRoute"]
        .map(|kind| json!({ "group": "gateway.networking.k8s.io", "kind": kind, "name": "llm" }));
    for spec in [
        good(),
        json!({ "targetRefs": targets, "limits": good()["limits"] }),
        every_field(),
        json!({ "targetRef": good()["targetRef"], "defaults": { "limits": good()["limits"] } }),
    ] {
        cluster.apply(&policy(spec).to_string());
    }
    let stored = cluster.get(&["wtrlp", "tested"]);
    let applied = json!({ "targetRef": good()["targetRef"], "defaults": { "limits": good()["limits"] } });
    assert_eq!(stored["spec"], applied, "whoever compares the two, as Argo CD does, sees no difference");
    let mut told_rules = Vec::new();
    for (spec, told) in bad() {
        match cluster.try_apply(&policy(spec.clone()).to_string()) {
            Ok(_) => panic!("accepted: {spec}"),
            Err(error) => {
                assert!(error.contains(told), "wanted {told:?} of {spec}: {error}");
                told_rules.push(error);
            }
        }
    }
    for rule in rules() {
        assert!(told_rules.iter().any(|told| told.contains(&rule)), "no example breaks the rule: {rule}");
    }
    let table = cluster.run(&["get", "wtrlp"]);
    assert!(table.contains("TARGET") && table.contains("ACCEPTED"), "{table}");
    let examples = artefacts::root().join("examples");
    let policies =
        std::fs::read_dir(examples).unwrap().map(|example| example.unwrap().path().join("policy.yaml"));
    for policy in policies.filter(|policy| policy.exists()) {
        cluster.run(&["apply", "-f", &policy.display().to_string()]);
    }
}

/// Returns the paths of all errors that `check` reports.
fn checked(document: &Value) -> Vec<String> {
    let mut file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    file.write_all(document.to_string().as_bytes()).unwrap();
    let told = Command::new(artefacts::adapter()).arg("check").arg(file.path()).output().unwrap();
    let told = String::from_utf8([told.stdout, told.stderr].concat()).unwrap();
    let path = |line: &str| Some(line.split(": document 1: ").nth(1)?.split(": ").next()?.to_owned());
    // Sections exist only in a cluster.
    told.lines().filter_map(path).filter(|path| path != "spec.targetRef.sectionName").collect()
}

/// Returns the corpus of bad policies, named after their files.
fn corpus() -> Vec<(String, Value)> {
    let folder = artefacts::root().join("crates/policy/tests/bad");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut document: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let named = document.pointer_mut("/metadata/name").filter(|value| value.is_string())?;
        if !name.starts_with("metadata") {
            *named = name.clone().into();
        }
        (document["kind"] == "TokenRateLimitPolicy").then_some((name, document))
    };
    files.filter(|path| path.extension().is_some_and(|is| is == "yaml")).filter_map(read).collect()
}

#[test]
fn every_bad_policy_is_refused_or_marked_with_its_mistakes() {
    let cluster = Cluster::start();
    let adapter = Adapter::start_in_cluster(&cluster.install(), &[]);
    let corpus = corpus();
    assert!(corpus.len() > 80, "{}", corpus.len());
    let mut taken = Vec::new();
    for (name, document) in &corpus {
        if cluster.try_apply(&document.to_string()).is_ok() {
            taken.push((name, document));
        }
    }
    println!("{} of {} are refused by the API server", corpus.len() - taken.len(), corpus.len());
    for (name, document) in taken {
        let object = document["metadata"]["name"].as_str().unwrap();
        let group = document["apiVersion"].as_str().unwrap().split('/').next().unwrap();
        let namespace = document["metadata"]["namespace"].as_str().unwrap_or("default");
        let resource = format!("tokenratelimitpolicies.{group}");
        let at = ["-n", namespace, &resource, object];
        let told = wait::within(wait::DEADLINE, || {
            let conditions = cluster.get(&at)["status"]["conditions"].clone();
            let accepted =
                conditions.as_array()?.iter().find(|condition| condition["type"] == "Accepted")?.clone();
            (accepted["status"] == "False").then_some(accepted)
        });
        let told = told.unwrap_or_else(|| panic!("{name} is not told its mistake: {:#}", cluster.get(&at)));
        let (reason, message) = (&told["reason"], told["message"].as_str().unwrap());
        // `check` finds only errors that do not depend on the cluster. The API server may report more.
        let mistakes = checked(&cluster.get(&at));
        for path in &mistakes {
            assert!(reason == "Invalid" && message.contains(path), "{name}: {path}: {told:#}");
        }
        let of_cluster = reason == "TargetNotFound" || reason == "Invalid" && message.contains("spec");
        assert!(!mistakes.is_empty() || of_cluster, "{name}: {told:#}");
    }
    drop(adapter);
}
