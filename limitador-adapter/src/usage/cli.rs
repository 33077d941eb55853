//! The options of `serve` for usage records, and the command `usage`.

use super::location::{UsageAccess, UsageLocation, UsageLocationError};
use super::query;
use super::row::USERS;
use crate::cli::ServerArgs;
use clap::{Args, ValueEnum};
use jiff::civil::Date;
use std::convert::Infallible;
use std::path::PathBuf;

/// Where to keep usage records.
#[derive(Clone, Debug, Default, Args)]
pub struct UsageStoreArgs {
    /// Where to keep a record of each settled exchange: sqlite:PATH, or postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE,
    /// with ?sslmode=require for TLS. Without it, no records are kept.
    #[arg(long, env = "WEIR_USAGE", hide_env_values = true, value_name = "STORE", value_parser = location)]
    pub usage: Option<Result<UsageLocation, UsageLocationError>>,
    /// A file with the password of the PostgreSQL user. It is read for each connection.
    #[arg(long, env = "WEIR_USAGE_PASSWORD_FILE", value_name = "FILE", requires = "usage")]
    pub usage_password_file: Option<PathBuf>,
    /// How many days to keep usage records. 0 keeps them without a limit.
    #[arg(long, env = "WEIR_USAGE_RETENTION_DAYS", value_name = "NUMBER", default_value_t = 400)]
    pub usage_retention_days: u32,
    /// The expression of the counter that identifies the user. By default, the first of auth.identity.userid,
    /// user_id, user, sub, username and email that a limit counts by.
    #[arg(long, env = "WEIR_USAGE_USER", value_name = "EXPRESSION", requires = "usage")]
    pub usage_user: Option<String>,
}

impl UsageStoreArgs {
    /// Returns the store, if there is one.
    pub fn access(&self) -> Result<Option<UsageAccess>, UsageLocationError> {
        let Some(location) = self.usage.clone().transpose()? else { return Ok(None) };
        Ok(Some(UsageAccess { location, password_file: self.usage_password_file.clone() }))
    }

    /// Returns after how many days records are deleted, if ever.
    pub fn retention(&self) -> Option<u32> {
        (self.usage_retention_days > 0).then_some(self.usage_retention_days)
    }

    /// Returns the expressions of the counters that can be the user.
    pub fn users(&self) -> Vec<String> {
        match &self.usage_user {
            Some(expression) => vec![expression.clone()],
            None => USERS.map(str::to_owned).to_vec(),
        }
    }
}

/// clap's errors repeat a value that its parser rejects, so this parser accepts every value.
fn location(text: &str) -> Result<Result<UsageLocation, UsageLocationError>, Infallible> {
    Ok(text.parse())
}

/// Which totals to show.
#[derive(Clone, Debug, Args)]
pub struct UsageArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// What to group by, separated by commas: day, policy, user, model, provider, gateway, route, status, source. With
    /// counter:EXPRESSION, which takes an option of its own, by the value of that counter.
    #[arg(long, value_name = "NAMES")]
    pub by: Vec<String>,
    /// The month, in UTC, such as 2026-11. By default the current one.
    #[arg(long, value_name = "MONTH", value_parser = query::month, conflicts_with_all = ["from", "to"])]
    pub month: Option<(Date, Date)>,
    /// The first day, in UTC, such as 2026-11-01.
    #[arg(long, value_name = "DAY")]
    pub from: Option<Date>,
    /// The day after the last one.
    #[arg(long, value_name = "DAY")]
    pub to: Option<Date>,
    /// The format of the output.
    #[arg(long, value_enum, default_value_t)]
    pub output: UsageFormat,
    /// Short for --output csv.
    #[arg(long, conflicts_with = "output")]
    pub csv: bool,
}

impl UsageArgs {
    /// Returns the format of the output.
    pub fn format(&self) -> UsageFormat {
        if self.csv { UsageFormat::Csv } else { self.output }
    }
}

/// How totals are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum UsageFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For spreadsheets.
    Csv,
}
