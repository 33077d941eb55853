//! `/api/usage`: totals of the usage records.

use super::http::Pages;
use crate::usage::query::TotalsQuery;
use crate::usage::recorder::UsageRecorder;
use crate::usage::store::StoreError;
use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The number of queries at a time. Each may read every record.
const AT_ONCE: usize = 2;

/// Answers questions about the stored records.
#[derive(Clone)]
pub struct UsageReports {
    recorder: Arc<UsageRecorder>,
    turns: Arc<Semaphore>,
}

impl UsageReports {
    pub fn new(recorder: Arc<UsageRecorder>) -> Self {
        Self { recorder, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Whether the store is unavailable.
    pub fn is_away(&self) -> bool {
        self.recorder.is_away()
    }
}

pub(super) async fn totals(State(pages): State<Pages>, RawQuery(query): RawQuery) -> Response {
    let Some(reports) = pages.usage else {
        return (StatusCode::NOT_FOUND, "this adapter stores no usage records; use --usage\n")
            .into_response();
    };
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let query = match TotalsQuery::parse(query.as_deref().unwrap_or_default(), today) {
        Ok(query) => query,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    let Ok(_turn) = reports.turns.try_acquire() else {
        return (StatusCode::TOO_MANY_REQUESTS, "other queries are running; try again later\n")
            .into_response();
    };
    match reports.recorder.store().totals(&query).await {
        Ok(mut totals) => {
            totals.sort();
            Json(totals.iter().map(|total| query.object(total)).collect::<Vec<Value>>()).into_response()
        }
        Err(error) => {
            let status = match &error {
                StoreError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
                StoreError::Rejected(_) | StoreError::TooLarge(_) => StatusCode::BAD_REQUEST,
            };
            (status, format!("{error}\n")).into_response()
        }
    }
}
