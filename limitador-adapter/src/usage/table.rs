//! The table `usage`, and the SQL of both backends. Their dialects differ in types, placeholders and JSON
//! functions only.

use super::query::Dimension;

/// The version of the table. It is stored in the database. A change adds a step to [`SqlDialect::migration`].
/// Replicas of two versions may use one database, so a step must not break the inserts of the version before.
pub const VERSION: i64 = 2;

/// The values of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ColumnType {
    Text,
    Time,
    Day,
    Number,
    Json,
}

/// The columns, with their constraints. The rows of an insert have fields with the same names.
const COLUMNS: [(&str, ColumnType, &str); 24] = [
    ("id", ColumnType::Text, "PRIMARY KEY NOT NULL"),
    ("time", ColumnType::Time, "NOT NULL"),
    ("day", ColumnType::Day, "NOT NULL"),
    ("gateway", ColumnType::Text, ""),
    ("route", ColumnType::Text, ""),
    ("request_id", ColumnType::Text, ""),
    ("policy", ColumnType::Text, "NOT NULL"),
    ("user", ColumnType::Text, ""),
    ("limits", ColumnType::Json, "NOT NULL"),
    ("provider", ColumnType::Text, ""),
    ("model", ColumnType::Text, ""),
    ("status", ColumnType::Text, "NOT NULL"),
    ("source", ColumnType::Text, "NOT NULL"),
    ("requests", ColumnType::Number, "NOT NULL"),
    ("input", ColumnType::Number, "NOT NULL"),
    ("cached", ColumnType::Number, "NOT NULL"),
    ("cache_write", ColumnType::Number, "NOT NULL"),
    ("output", ColumnType::Number, "NOT NULL"),
    ("reasoning", ColumnType::Number, "NOT NULL"),
    ("total", ColumnType::Number, "NOT NULL"),
    ("micro_usd", ColumnType::Number, ""),
    ("first_byte_ms", ColumnType::Number, ""),
    ("duration_ms", ColumnType::Number, ""),
    (RESULT, ColumnType::Text, ""),
];

/// The hash of the background result that the exchange created. Version 2 added it.
const RESULT: &str = "result";

/// The columns that a query adds up, in the order of [`super::query::UsageTotal::sums`].
pub const SUMMED: [&str; 8] =
    ["requests", "input", "cached", "cache_write", "output", "reasoning", "total", "micro_usd"];

/// The SQL of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlDialect {
    Sqlite,
    Postgres,
}

impl SqlDialect {
    fn type_of(self, column: ColumnType) -> &'static str {
        match (self, column) {
            (Self::Sqlite, ColumnType::Number) => "INTEGER",
            (Self::Sqlite, ColumnType::Text | ColumnType::Time | ColumnType::Day | ColumnType::Json) => {
                "TEXT"
            }
            (Self::Postgres, ColumnType::Text) => "text",
            (Self::Postgres, ColumnType::Time) => "timestamptz",
            (Self::Postgres, ColumnType::Day) => "date",
            (Self::Postgres, ColumnType::Number) => "bigint",
            (Self::Postgres, ColumnType::Json) => "jsonb",
        }
    }

    /// Returns the statements that upgrade a database from the version before this one.
    pub fn migration(self, to: i64) -> Option<String> {
        let text = self.type_of(ColumnType::Text);
        let columns = COLUMNS.iter().filter(|(name, ..)| *name != RESULT);
        let columns = columns
            .map(|(name, column, constraint)| format!("\"{name}\" {} {constraint}", self.type_of(*column)));
        match to {
            1 => Some(format!(
                "CREATE TABLE \"usage\" ({});\nCREATE INDEX usage_by_day ON \"usage\" (\"day\");\n",
                columns.collect::<Vec<_>>().join(", ")
            )),
            2 => Some(format!(
                "ALTER TABLE \"usage\" ADD COLUMN {RESULT} {text};\n\
                 CREATE INDEX usage_by_result ON \"usage\" ({RESULT}) WHERE {RESULT} IS NOT NULL;\n"
            )),
            _ => None,
        }
    }

    /// Finds the record of the exchange that created a result, which is the only parameter. Returns its id and its
    /// limits, and locks it. A provider may use an id again, so the latest record counts.
    pub fn find_result(self) -> String {
        let (result, lock) = (self.parameter(1), if self == Self::Postgres { " FOR UPDATE" } else { "" });
        format!(
            "SELECT id, CAST(limits AS text) FROM \"usage\" WHERE {RESULT} = {result} ORDER BY time DESC LIMIT 1{lock}"
        )
    }

    /// Sets the limits of a record. The parameters are its id, the limits and the micro-USD.
    pub fn complete_limits(self) -> String {
        let [id, limits, micro_usd] = [1, 2, 3].map(|at| self.parameter(at));
        let json = if self == Self::Postgres { "::text::jsonb" } else { "" };
        format!("UPDATE \"usage\" SET limits = {limits}{json}, micro_usd = {micro_usd} WHERE id = {id}")
    }

    /// Sets the counts of a record, unless it has larger ones. The parameters are its id, the source, and the counts
    /// of [`super::completion::Completion`].
    pub fn complete_counts(self) -> String {
        let names = ["source", "input", "cached", "cache_write", "output", "reasoning", "total"];
        let set = names.iter().zip(2..).map(|(name, at)| format!("{name} = {}", self.parameter(at)));
        let (set, id, total) = (set.collect::<Vec<_>>().join(", "), self.parameter(1), self.parameter(8));
        format!("UPDATE \"usage\" SET {set} WHERE id = {id} AND total <= {total}")
    }

    /// Inserts the rows of a JSON array, which is the only parameter.
    pub fn insert(self) -> String {
        let names = COLUMNS.map(|(name, ..)| format!("\"{name}\"")).join(", ");
        let rows = match self {
            Self::Sqlite => {
                let values = COLUMNS.map(|(name, column, _)| match column {
                    ColumnType::Json => format!("value->'$.{name}'"),
                    ColumnType::Text | ColumnType::Time | ColumnType::Day | ColumnType::Number => {
                        format!("value->>'$.{name}'")
                    }
                });
                // Without a WHERE, SQLite takes ON for the condition of a join.
                format!("SELECT {} FROM json_each(?1) WHERE true", values.join(", "))
            }
            Self::Postgres => {
                let types = COLUMNS.map(|(name, column, _)| format!("\"{name}\" {}", self.type_of(column)));
                format!("SELECT {names} FROM jsonb_to_recordset($1::text::jsonb) AS r({})", types.join(", "))
            }
        };
        format!("INSERT INTO \"usage\" ({names}) {rows} ON CONFLICT (id) DO NOTHING")
    }

    /// Deletes some records from before a day. The parameters are the day and the number.
    pub fn expire(self) -> String {
        let (day, number) = (self.day(1), self.parameter(2));
        format!(
            "DELETE FROM \"usage\" WHERE id IN (SELECT id FROM \"usage\" WHERE \"day\" < {day} LIMIT {number})"
        )
    }

    fn parameter(self, number: usize) -> String {
        match self {
            Self::Sqlite => format!("?{number}"),
            Self::Postgres => format!("${number}"),
        }
    }

    fn day(self, number: usize) -> String {
        match self {
            Self::Sqlite => format!("?{number}"),
            Self::Postgres => format!("${number}::text::date"),
        }
    }

    /// The elements of the limits of records `s`, as `l`.
    fn limits(self) -> &'static str {
        match self {
            Self::Sqlite => "json_each(s.limits) l",
            Self::Postgres => "jsonb_array_elements(s.limits) l",
        }
    }

    /// The counters of a limit `l`, as `c`.
    fn counters(self) -> &'static str {
        match self {
            Self::Sqlite => "json_each(l.value, '$.counters') c",
            Self::Postgres => "jsonb_each_text(l.value->'counters') c",
        }
    }

    fn sum(self, column: &str) -> String {
        match self {
            // SQLite's `sum` fails if an integer overflows.
            Self::Sqlite => format!("CAST(total(u.\"{column}\") AS INTEGER)"),
            Self::Postgres => {
                format!("LEAST(COALESCE(SUM(u.\"{column}\"), 0), 9223372036854775807)::bigint")
            }
        }
    }

    /// Returns the query for totals by these dimensions. Its parameters are the first day, the day after the
    /// last one, the maximum number of rows, and the expressions of counters. An exchange under several
    /// policies, or with several values of a counter, is part of the totals of each of them.
    pub fn totals(self, by: &[Dimension]) -> (String, Vec<String>) {
        let (from, to) = (self.day(1), self.day(2));
        let (mut keys, mut joins, mut expressions) = (Vec::new(), String::new(), Vec::new());
        let selected = format!("s.\"day\" >= {from} AND s.\"day\" < {to}");
        for (at, dimension) in by.iter().enumerate() {
            let key = match dimension {
                Dimension::Day if self == Self::Postgres => "to_char(u.\"day\", 'YYYY-MM-DD')".to_owned(),
                Dimension::Day
                | Dimension::User
                | Dimension::Model
                | Dimension::Provider
                | Dimension::Gateway
                | Dimension::Route
                | Dimension::Status
                | Dimension::Source => format!("u.\"{}\"", dimension.name()),
                Dimension::Policy => {
                    joins += &format!(
                        " JOIN (SELECT DISTINCT s.id AS id, l.value->>'policy' AS policy \
                         FROM \"usage\" s, {} WHERE {selected}) j{at} ON j{at}.id = u.id",
                        self.limits()
                    );
                    format!("j{at}.policy")
                }
                Dimension::Counter(expression) => {
                    expressions.push(expression.clone());
                    let parameter = self.parameter(expressions.len().saturating_add(3));
                    joins += &format!(
                        " LEFT JOIN (SELECT DISTINCT s.id AS id, c.value AS value FROM \"usage\" s, {}, {} \
                         WHERE {selected} AND c.key = {parameter}) j{at} ON j{at}.id = u.id",
                        self.limits(),
                        self.counters()
                    );
                    format!("j{at}.value")
                }
            };
            keys.push(key);
        }
        let sums = SUMMED.map(|column| self.sum(column));
        let columns = keys.iter().map(String::as_str).chain(sums.iter().map(String::as_str));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let group = if keys.is_empty() { String::new() } else { format!(" GROUP BY {}", keys.join(", ")) };
        let most = self.parameter(3);
        let sql = format!(
            "SELECT {columns} FROM \"usage\" u{joins} WHERE u.\"day\" >= {from} AND u.\"day\" < {to}{group} \
             LIMIT {most}"
        );
        (sql, expressions)
    }
}
