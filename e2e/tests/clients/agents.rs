//! Coding agents from npm. Each one gets one prompt and has its default settings, except for the base URL and
//! the key.

use crate::gateway::Gateway;
use crate::installed;
use e2e::llm::TEXT;
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

pub fn trials() -> Vec<Trial> {
    let metered = || json!({});
    let refused = || json!({ "webSocket": "Refuse" });
    vec![
        Trial::test("agents::codex_over_a_websocket", move || {
            let gateway = answered_then_refused(codex, &metered())?;
            let requests = gateway.requests("plain");
            check(&gateway, requests.iter().any(|line| line.starts_with("101 GET")), "a socket", &requests)?;
            check(&gateway, !requests.iter().any(|line| line.contains("POST")), "no POST", &requests)
        }),
        Trial::test("agents::codex_over_post", move || {
            let gateway = answered_then_refused(codex, &refused())?;
            let requests = gateway.requests("plain");
            check(&gateway, requests.iter().any(|line| line.starts_with("426 GET")), "a refusal", &requests)?;
            check(&gateway, requests.iter().any(|line| line.starts_with("200 POST")), "a POST", &requests)?;
            let refused = gateway.requests("long");
            let refused: Vec<_> = refused.into_iter().filter(|line| line.starts_with("429")).collect();
            check(&gateway, refused.len() == 1, "it asks once", &refused)
        }),
        Trial::test("agents::claude_code", move || answered_then_refused(claude, &metered()).map(drop)),
        Trial::test("agents::gemini_cli", move || {
            let gateway = Gateway::start(&["plain", "never"], &metered());
            answered(&gateway, gemini)?;
            let (printed, _) = ask(&gateway, "never", gemini, 1);
            let told = printed.contains("limit never of policy");
            check(&gateway, told, "it prints the limit", &printed)?;
            let requests = gateway.requests("never");
            let refused: Vec<_> = requests.into_iter().filter(|line| line.starts_with("400")).collect();
            // One call selects the model, and one sends the prompt.
            check(&gateway, (1..=2).contains(&refused.len()), "it asks once", &refused)
        }),
    ]
}

type Agent = fn(&Gateway, &str, &Path) -> Command;

/// Sends a prompt within the limit, and one that a daily limit refuses.
fn answered_then_refused(agent: Agent, usage: &Value) -> Result<Gateway, Failed> {
    let gateway = Gateway::start(&["plain", "long"], usage);
    answered(&gateway, agent)?;
    // Some agents make several calls per prompt, and the first one uses up the limit.
    ask(&gateway, "long", agent, 1);
    let (printed, ended) = ask(&gateway, "long", agent, 2);
    check(&gateway, ended, "it gives up", &printed)?;
    check(&gateway, printed.contains("limit long of policy"), "it prints the limit", &printed)?;
    let (charged, reported) = (gateway.charged("long"), gateway.reported("long"));
    check(&gateway, charged == reported, "the charge is what was reported", &(charged, reported))?;
    Ok(gateway)
}

fn answered(gateway: &Gateway, agent: Agent) -> Result<(), Failed> {
    let (printed, _) = ask(gateway, "plain", agent, 1);
    check(gateway, printed.contains(TEXT), "it gets an answer", &printed)?;
    let (charged, reported) = (gateway.charged("plain"), gateway.reported("plain"));
    check(
        gateway,
        charged == reported && charged > 0,
        "the charge is what was reported",
        &(charged, reported),
    )
}

fn ask(gateway: &Gateway, case: &str, agent: Agent, time: u8) -> (String, bool) {
    let home = gateway.place(&format!("home-{case}"));
    gateway.run(&format!("{case}-{time}"), agent(gateway, case, &home))
}

fn check(gateway: &Gateway, holds: bool, what: &str, found: &impl std::fmt::Debug) -> Result<(), Failed> {
    if holds {
        return Ok(());
    }
    gateway.world.adapter.show_log();
    gateway.world.envoy.show_log();
    Err(format!("not so: {what}: {found:#?}").into())
}

/// Returns a command that runs the program with a separate home folder.
fn program(name: &str, home: &Path) -> Command {
    let mut command = Command::new(installed("AGENTS").join("node_modules/.bin").join(name));
    command.current_dir(home).env("HOME", home).env_remove("XDG_CONFIG_HOME");
    command
}

fn codex(gateway: &Gateway, case: &str, home: &Path) -> Command {
    let mut command = program("codex", home);
    let base = format!("openai_base_url=\"{}/v1\"", gateway.base(case));
    command.env("CODEX_HOME", home).env("CODEX_API_KEY", "key");
    command.args(["exec", "--skip-git-repo-check", "-c", &base, "How does water flow?"]);
    command
}

fn claude(gateway: &Gateway, case: &str, home: &Path) -> Command {
    let mut command = program("claude", home);
    command.env("ANTHROPIC_BASE_URL", gateway.base(case)).env("ANTHROPIC_API_KEY", "key");
    command.args(["-p", "How does water flow?"]);
    command
}

fn gemini(gateway: &Gateway, case: &str, home: &Path) -> Command {
    let settings = json!({ "security": { "auth": { "selectedType": "gemini-api-key" } } });
    let folder = home.join(".gemini");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    std::fs::write(folder.join("settings.json"), settings.to_string()).expect("a file can be written");
    let mut command = program("gemini", home);
    command.env("GOOGLE_GEMINI_BASE_URL", gateway.base(case)).env("GEMINI_API_KEY", "key");
    command.args(["--skip-trust", "-p", "How does water flow?"]);
    command
}
