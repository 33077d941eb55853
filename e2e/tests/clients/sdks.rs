//! SDKs from PyPI and npm. Each SDK plays all of its cases in one process.

use crate::gateway::Gateway;
use crate::installed;
use e2e::artefacts;
use e2e::llm::TEXT;
use libtest_mimic::Failed;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::process::Command;

#[derive(Clone, Copy)]
pub enum Language {
    Python,
    Node,
}
use Language::{Node, Python};

/// How a client handles a refusal.
pub struct Manners {
    /// Whether the client waits for a short retry time and retries.
    waits: bool,
    /// The number of requests for a call with a retry time of one day.
    long: RangeInclusive<usize>,
    /// The number of seconds after which the client gives up.
    patience: f64,
}

pub struct Sdk {
    language: Language,
    name: &'static str,
    /// The cases in addition to `plain`, which all clients play.
    cases: &'static [&'static str],
    /// The number of requests for an upload.
    upload: usize,
    manners: Manners,
}

const REFUSALS: [&str; 3] = ["short", "long", "never"];

/// The client makes only one request if the retry time is one day.
const SENSIBLE: Manners = Manners { waits: true, long: 1..=1, patience: 30.0 };
/// The client reports every refusal to its caller.
const PLAIN: Manners = Manners { waits: false, long: 1..=1, patience: 30.0 };
/// The client retries regardless of the refusal's retry time.
const STUBBORN: Manners = Manners { waits: true, long: 2..=12, patience: 30.0 };
/// The client waits a minute each time, regardless of the refusal's retry time.
const PATIENT: Manners = Manners { waits: true, long: 2..=4, patience: 150.0 };

const fn sdk(
    language: Language,
    name: &'static str,
    cases: &'static [&'static str],
    manners: Manners,
) -> Sdk {
    Sdk { language, name, cases, upload: 1, manners }
}

pub const SDKS: [Sdk; 18] = [
    sdk(Python, "openai", &["stream", "tools", "upload", "abort", "responses", "responses_stream"], SENSIBLE),
    sdk(Python, "anthropic", &["stream", "tools", "upload", "count", "abort"], SENSIBLE),
    Sdk {
        upload: 2,
        ..sdk(Python, "google_genai", &["stream", "tools", "upload", "count", "abort", "live"], PLAIN)
    },
    sdk(Python, "mistral", &["stream", "tools", "upload", "abort"], PLAIN),
    sdk(Python, "cohere", &["stream", "tools", "upload", "abort"], PATIENT),
    sdk(Python, "bedrock", &["stream", "tools", "abort"], STUBBORN),
    sdk(Python, "ollama", &["stream", "tools", "abort"], PLAIN),
    sdk(Python, "langchain", &["stream", "tools", "abort"], SENSIBLE),
    sdk(Python, "langchain_claude", &["stream", "tools", "abort"], SENSIBLE),
    sdk(Node, "openai", &["stream", "tools", "upload", "abort", "responses", "responses_stream"], SENSIBLE),
    sdk(Node, "anthropic", &["stream", "tools", "upload", "count", "abort"], SENSIBLE),
    Sdk { upload: 2, ..sdk(Node, "google_genai", &["stream", "tools", "upload", "count", "abort"], PLAIN) },
    sdk(Node, "ai_sdk", &["stream", "chat_stream", "tools", "abort"], STUBBORN),
    sdk(Node, "ai_sdk_anthropic", &["stream"], STUBBORN),
    sdk(Node, "ai_sdk_google", &["stream"], STUBBORN),
    sdk(Node, "mistral", &["stream", "tools", "upload", "abort"], PLAIN),
    sdk(Node, "cohere", &["stream", "tools", "abort"], PATIENT),
    sdk(Node, "langchain", &["stream", "tools", "abort"], SENSIBLE),
];

/// The outcome of a case.
struct Outcome {
    told: Value,
    requests: Vec<String>,
    charged: u64,
}

impl Sdk {
    pub fn title(&self) -> String {
        let language = match self.language {
            Python => "python",
            Node => "node",
        };
        format!("{language}::{}", self.name)
    }

    pub fn plays_its_cases(&self) -> Result<(), Failed> {
        let cases: Vec<&str> = ["plain"].iter().chain(self.cases).chain(&REFUSALS).copied().collect();
        let gateway = Gateway::start(&cases, &json!({}));
        let (printed, ended) = gateway.run("client", self.command(&gateway, &cases));
        let lines = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let told: BTreeMap<String, Value> =
            lines.filter_map(|line| Some((line["case"].as_str()?.to_owned(), line))).collect();
        let mut wrong = String::new();
        for case in cases {
            let outcome = Outcome {
                told: told.get(case).cloned().unwrap_or_default(),
                requests: gateway.requests(case),
                charged: gateway.charged(case),
            };
            if let Err(why) = self.judge(case, &outcome, gateway.reported(case)) {
                let Outcome { told, requests, charged } = &outcome;
                writeln!(wrong, "{case}: {why}: {told}, {charged} charged, requests {requests:#?}")?;
            }
        }
        if wrong.is_empty() && ended {
            return Ok(());
        }
        gateway.world.adapter.show_log();
        gateway.world.envoy.show_log();
        let end = if ended { "" } else { "it did not end\n" };
        Err(format!("{end}{wrong}--- it printed:\n{printed}").into())
    }

    fn command(&self, gateway: &Gateway, cases: &[&str]) -> Command {
        let bases: BTreeMap<&str, String> = cases.iter().map(|case| (*case, gateway.base(case))).collect();
        let mut command = match self.language {
            Python => {
                let mut command = Command::new("python3");
                command.env("PYTHONPATH", installed("PYTHON")).env("PYTHONDONTWRITEBYTECODE", "1");
                command.arg(artefacts::root().join("e2e/clients/python/run.py"));
                command
            }
            Node => {
                let mut command = Command::new("node");
                command.arg(installed("NODE").join("run.mjs"));
                command
            }
        };
        command.arg(self.name).arg(json!(bases).to_string());
        command
    }

    fn judge(&self, case: &str, outcome: &Outcome, reported: u64) -> Result<(), String> {
        let Outcome { told, requests, charged } = outcome;
        let (text, error) = (told["text"].as_str(), told["error"].as_str().unwrap_or_default());
        let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        match case {
            "short" if self.manners.waits => {
                check(text == Some(TEXT), "it waits and gets an answer")?;
                check((3..=6).contains(&requests.len()), "it tries again")
            }
            "short" | "long" => {
                let of_refused = if case == "long" { self.manners.long.clone() } else { 1..=1 };
                let named = error.contains(&format!("limit {case} of policy"));
                check(named, "the error names the limit")?;
                let refused = requests.iter().filter(|request| request.starts_with("429")).count();
                check(of_refused.contains(&refused), "that many requests are refused")?;
                check(requests.len() == refused + 1, "one request is answered")?;
                check(
                    told["seconds"].as_f64().is_some_and(|seconds| seconds < self.manners.patience),
                    "it gives up soon",
                )?;
                check(case == "short" || *charged == reported, "the charge is what was reported")
            }
            "never" => {
                check(error.contains("limit never of policy"), "the error names the limit")?;
                let stops = |request: &String| request.starts_with("413") || request.starts_with("400");
                check(requests.len() == 1 && requests.iter().all(stops), "one request")?;
                check(*charged == 0, "nothing is charged")
            }
            "abort" => {
                check(text.is_some_and(|text| TEXT.starts_with(text.trim())), "it gets the beginning")?;
                check(requests.len() == 1, "one request")?;
                check((1..200).contains(charged), "what was delivered is charged")
            }
            "upload" | "count" => {
                check(error.is_empty() && text.is_some(), "it works")?;
                check(requests.len() == if case == "upload" { self.upload } else { 1 }, "so many requests")?;
                check(*charged == 0, "nothing is charged")
            }
            _ => {
                let right = match case {
                    "tools" => {
                        text.is_some_and(|text| text.starts_with("get_weather") && text.contains("Paris"))
                    }
                    _ => text == Some(TEXT),
                };
                check(right, "it gets the answer")?;
                check(requests.len() == 1, "one request")?;
                check(*charged == reported && reported > 0, &format!("{reported} are charged"))
            }
        }
    }
}
