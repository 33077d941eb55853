//! `counters`: shows and changes the counters of a running adapter.

use crate::cli::{CountersAction, FilterArgs, GrantArgs, ListArgs, OutputFormat, ResetArgs, ServerArgs};
use crate::explain::live::exchange;
use anyhow::{Context, bail};
use policy::model::Unit;
use serde_json::{Map, Value, json};

/// Performs the action and returns the text to print.
pub async fn run(action: &CountersAction) -> anyhow::Result<String> {
    match action {
        CountersAction::List(list) => listed(list).await,
        CountersAction::Reset(reset) => self::reset(reset).await,
        CountersAction::Grant(grant) => granted(grant).await,
    }
}

async fn listed(list: &ListArgs) -> anyhow::Result<String> {
    let ListArgs { server, policy, filter, output } = list;
    let all = call(server, "GET", "/api/counters", None).await?;
    let Value::Array(all) = all else { bail!("{}: unexpected response", server.server) };
    let is = |wanted: &Option<String>, counter: &Value, field: &str| {
        wanted.as_ref().is_none_or(|wanted| counter.get(field).is_some_and(|value| value == wanted))
    };
    let matches = |counter: &&Value| {
        let window = |field| is(&filter.window, counter, field);
        let mut values = filter.counter.iter();
        is(policy, counter, "policy")
            && is(&filter.limit, counter, "limit")
            && is(&filter.unit, counter, "unit")
            && (window("window") || window("period"))
            && values.all(|(name, value)| {
                counter.get("counters").and_then(|all| all.get(name)) == Some(&json!(value))
            })
    };
    let found: Vec<_> = all.iter().filter(matches).collect();
    match output {
        OutputFormat::Json => Ok(format!("{:#}\n", json!(found))),
        OutputFormat::Text if found.is_empty() => Ok("no counters\n".to_owned()),
        OutputFormat::Text => Ok(found.into_iter().map(line).collect()),
    }
}

/// Formats one counter as a line.
fn line(counter: &Value) -> String {
    let text = |field: &str| counter.get(field).and_then(Value::as_str).unwrap_or_default();
    let unit = Unit::named(text("unit"));
    let quantity = |field: &str| {
        let amount = counter.get(field).and_then(Value::as_u64)?;
        Some(unit.map_or_else(|| amount.to_string(), |unit| unit.quantity(amount)))
    };
    let mut line = format!("{}/{}", text("policy"), text("limit"));
    for window in [text("window"), text("period")] {
        if !window.is_empty() {
            line.push_str(" per ");
            line.push_str(window);
        }
    }
    let counters = counter.get("counters").and_then(Value::as_object).into_iter().flatten();
    for (name, value) in counters {
        line.push_str(&format!(" {name}={}", value.as_str().unwrap_or_default()));
    }
    line.push(':');
    for (field, what) in
        [("used", "used"), ("held", "held"), ("granted", "granted"), ("remaining", "remaining")]
    {
        if let Some(amount) = quantity(field) {
            line.push_str(&format!(" {amount} {what},"));
        }
    }
    match counter.get("resetsInSeconds").and_then(Value::as_u64) {
        Some(seconds) => line + &format!(" resets in {seconds} s\n"),
        None => line.trim_end_matches(',').to_owned() + "\n",
    }
}

async fn reset(reset: &ResetArgs) -> anyhow::Result<String> {
    let ResetArgs { server, policy, filter: FilterArgs { limit, unit, window, counter } } = reset;
    let body = json!({"policy": policy, "limit": limit, "unit": unit, "window": window, "counters": counters(counter)});
    let answer = call(server, "POST", "/api/counters/reset", Some(&body)).await?;
    let count = answer.get("reset").and_then(Value::as_u64).unwrap_or_default();
    Ok(format!("{count} counter{} reset\n", if count == 1 { "" } else { "s" }))
}

async fn granted(grant: &GrantArgs) -> anyhow::Result<String> {
    let id = grant.id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let body = json!({
        "policy": grant.policy, "limit": grant.limit, "unit": grant.unit, "window": grant.window,
        "counters": counters(&grant.counter), "amount": grant.amount, "id": id,
    });
    Ok(line(&call(&grant.server, "POST", "/api/counters/grant", Some(&body)).await?))
}

fn counters(given: &[(String, String)]) -> Map<String, Value> {
    given.iter().map(|(name, value)| (name.clone(), json!(value))).collect()
}

/// Calls the adapter's API. Returns the answer's JSON.
pub async fn call(to: &ServerArgs, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let server = to.server.trim_end_matches('/');
    let address = server.strip_prefix("http://");
    let address = address.with_context(|| {
        format!("{server}: must be an http:// URL; forward the port if the adapter is elsewhere")
    })?;
    let token = to.token_file.as_ref().map(std::fs::read_to_string).transpose().context("--token-file")?;
    let authorization =
        token.map(|token| format!("authorization: Bearer {}\r\n", token.trim())).unwrap_or_default();
    let body = body.map(Value::to_string).unwrap_or_default();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nhost: {address}\r\n{authorization}content-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    let (status, answer) = exchange(address, &request).await.with_context(|| server.to_owned())?;
    match status {
        200 => serde_json::from_slice(&answer).with_context(|| server.to_owned()),
        401 | 403 => bail!("{server} answered {status}: use --token-file FILE with the admin token"),
        404 if answer.is_empty() => bail!("{server} answered 404; is it an adapter of this version?"),
        _ => bail!("{server} answers {status}: {}", String::from_utf8_lossy(&answer).trim_end()),
    }
}
