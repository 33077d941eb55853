//! `usage`: asks a running adapter for totals, for people, programs and spreadsheets.

use super::query::{dimensions, fields};
use crate::admin::counters::percent_encoded;
use crate::cli::{UsageArgs, UsageFormat};
use crate::counters::call;
use anyhow::{anyhow, bail};
use serde_json::Value;

/// Returns the text to print.
pub async fn run(asked: &UsageArgs) -> anyhow::Result<String> {
    let by = dimensions(&asked.by).map_err(|error| anyhow!("--{error}"))?;
    let names = by.iter().map(|dimension| format!("by={}", percent_encoded(&dimension.parameter())));
    let mut query: Vec<String> = names.collect();
    let (from, to) = match asked.month {
        Some((from, to)) => (Some(from), Some(to)),
        None => (asked.from, asked.to),
    };
    query.extend(from.map(|from| format!("from={from}")));
    query.extend(to.map(|to| format!("to={to}")));
    let path = format!("/api/usage?{}", query.join("&"));
    let answer = call(&asked.server, "GET", &path, None).await?;
    let Value::Array(rows) = &answer else { bail!("{}: unexpected response", asked.server.server) };
    let fields = fields(&by);
    match asked.format() {
        UsageFormat::Json => Ok(format!("{answer:#}\n")),
        UsageFormat::Csv => csv(&fields, by.len(), rows),
        UsageFormat::Text => Ok(table(&fields, by.len(), rows)),
    }
}

fn cell(row: &Value, field: &str) -> String {
    match row.get(field) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

fn csv(fields: &[&str], keys: usize, rows: &[Value]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(fields)?;
    for row in rows {
        let cells = fields.iter().enumerate();
        let cells =
            cells.map(|(at, field)| if at < keys { harmless(cell(row, field)) } else { cell(row, field) });
        writer.write_record(cells)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// Clients choose models and other texts. A spreadsheet must not take such a text for a formula.
fn harmless(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text }
}

fn table(fields: &[&str], keys: usize, rows: &[Value]) -> String {
    let heads = fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>();
    let shown = |text: String| text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    let cells = rows.iter().map(|row| {
        let cell = |(at, field): (usize, &&str)| match cell(row, field) {
            text if at < keys && text.is_empty() => "-".to_owned(),
            text => shown(text),
        };
        fields.iter().enumerate().map(cell).collect::<Vec<String>>()
    });
    let lines: Vec<Vec<String>> = std::iter::once(heads).chain(cells).collect();
    let width =
        |at: usize| lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..fields.len()).map(|at| width(at).unwrap_or_default()).collect();
    let line = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).enumerate().map(|(at, (cell, &width))| match at < keys {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_spreadsheet_takes_no_text_for_a_formula() {
        let rows = [json!({ "model": "=1+1", "total": 3 }), json!({ "model": "a \"b\", c", "total": 4 })];
        let text = csv(&["model", "total"], 1, &rows).unwrap();
        assert_eq!(text, "model,total\n'=1+1,3\n\"a \"\"b\"\", c\",4\n");
    }

    #[test]
    fn a_table_is_aligned() {
        let rows = [json!({ "user": "alice", "total": 3 }), json!({ "user": null, "total": 40 })];
        assert_eq!(table(&["user", "total"], 1, &rows), "user   total\nalice      3\n-         40\n");
    }
}
