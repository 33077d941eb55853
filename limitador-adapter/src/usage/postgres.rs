//! Usage records in PostgreSQL.

use super::completion::{CompletedLimits, Completion};
use super::query::{TotalsQuery, UsageTotal};
use super::store::{MAX_TOTALS, QUERY_TIMEOUT, StoreError, UsageStore, bounded, too_slow};
use super::table::{SqlDialect, VERSION};
use crate::secret::{Secret, without};
use llm::spelling::percent_decoded;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long connecting, and a statement that writes, may take. It is less than a filter waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Identifies the lock of those that create or upgrade the table.
const MIGRATION_LOCK: i64 = 0x5765_6972;

const DIALECT: SqlDialect = SqlDialect::Postgres;

/// A PostgreSQL server.
pub struct PostgresStore {
    config: Config,
    password_file: Option<PathBuf>,
    tls: Option<MakeRustlsConnect>,
    /// The connection that writes. `None` until the first use, and after a failure.
    writer: Mutex<Option<Client>>,
}

impl PostgresStore {
    /// Connects when it is first used.
    pub fn new(url: &Secret, password_file: Option<PathBuf>) -> Result<Self, StoreError> {
        let invalid = |message: &str| StoreError::Rejected(message.to_owned());
        let tls = TlsOptions::of(url.expose()).map_err(invalid)?;
        // The parser's message may repeat a part of the URL.
        let mut config: Config = tls.url.parse().map_err(|_| {
            invalid("the URL must be postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?sslmode=require]")
        })?;
        if config.get_hosts().is_empty() {
            return Err(invalid("the URL has no host"));
        }
        config.application_name("weir").connect_timeout(TIMEOUT);
        config.ssl_mode(if tls.is_used { SslMode::Require } else { SslMode::Disable });
        let tls = tls.is_used.then(|| client_tls(tls.authorities.as_deref())).transpose()?;
        Ok(Self { config, password_file, tls, writer: Mutex::default() })
    }

    async fn connect(&self, timeout: Duration) -> Result<Client, StoreError> {
        let mut config = self.config.clone();
        if let Some(file) = &self.password_file {
            let password = std::fs::read_to_string(file);
            let password = password.map_err(|error| {
                StoreError::Unavailable(format!("--usage-password-file cannot be read: {error}"))
            })?;
            config.password(password.trim_end_matches(['\r', '\n']));
        }
        let secret = config.get_password().map(|password| String::from_utf8_lossy(password).into_owned());
        let failed = |error: tokio_postgres::Error| {
            let error = message(&error);
            StoreError::Unavailable(without(&error, &secret).into_owned())
        };
        // The driver ends when the client is dropped. It reports errors to the client as well.
        let client = match &self.tls {
            Some(tls) => {
                let (client, driver) = config.connect(tls.clone()).await.map_err(failed)?;
                tokio::spawn(async move { drop(driver.await) });
                client
            }
            None => {
                let (client, driver) = config.connect(NoTls).await.map_err(failed)?;
                tokio::spawn(async move { drop(driver.await) });
                client
            }
        };
        let set = format!("SET statement_timeout = {}", timeout.as_millis());
        client.batch_execute(&set).await.map_err(failed)?;
        Ok(client)
    }

    /// Runs a statement.
    async fn execute(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64, StoreError> {
        self.write(async |client| client.execute(statement, parameters).await).await
    }

    /// Runs this with the connection that writes, and connects if there is none. A connection is not used again after
    /// a failure.
    async fn write<T>(
        &self,
        act: impl AsyncFnOnce(&mut Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        let mut writer = self.writer.lock().await;
        let run = async {
            let mut client = match writer.take().filter(|client| !client.is_closed()) {
                Some(client) => client,
                None => {
                    let mut client = self.connect(TIMEOUT).await?;
                    // A failed migration is no reason to reject a record.
                    let unavailable = |error| StoreError::Unavailable(message(&error));
                    migrate(&mut client).await.map_err(unavailable)?;
                    client
                }
            };
            let done = act(&mut client).await.map_err(failed)?;
            *writer = Some(client);
            Ok(done)
        };
        let late = |_| StoreError::Unavailable("the server does not answer in time".to_owned());
        tokio::time::timeout(TIMEOUT, run).await.map_err(late)?
    }
}

/// Creates or upgrades the table. Replicas that start together do it one after the other.
async fn migrate(client: &mut Client) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?;
    transaction.batch_execute("CREATE TABLE IF NOT EXISTS weir_schema (version bigint NOT NULL)").await?;
    let version = transaction.query_one("SELECT COALESCE(MAX(version), 0) FROM weir_schema", &[]).await?;
    let version: i64 = version.try_get(0)?;
    for step in version.saturating_add(1)..=VERSION {
        if let Some(statements) = DIALECT.migration(step) {
            transaction.batch_execute(&statements).await?;
            transaction.execute("INSERT INTO weir_schema (version) VALUES ($1)", &[&step]).await?;
        }
    }
    transaction.commit().await
}

#[tonic::async_trait]
impl UsageStore for PostgresStore {
    async fn prepare(&self) -> Result<(), StoreError> {
        self.execute("SELECT 1", &[]).await.map(drop)
    }

    async fn insert(&self, rows: String) -> Result<u64, StoreError> {
        self.execute(&DIALECT.insert(), &[&rows]).await
    }

    async fn complete(&self, completion: Completion) -> Result<bool, StoreError> {
        self.write(async |client| complete(client, &completion).await).await
    }

    async fn totals(&self, query: &TotalsQuery) -> Result<Vec<UsageTotal>, StoreError> {
        let client = self.connect(QUERY_TIMEOUT).await?;
        let (sql, expressions) = DIALECT.totals(&query.by);
        let most = i64::try_from(MAX_TOTALS).unwrap_or(i64::MAX).saturating_add(1);
        let (from, to) = (query.from.to_string(), query.to.to_string());
        let fixed: [&(dyn ToSql + Sync); 3] = [&from, &to, &most];
        let further = expressions.iter().map(|expression| expression as &(dyn ToSql + Sync));
        let parameters: Vec<_> = fixed.into_iter().chain(further).collect();
        let rows = tokio::time::timeout(QUERY_TIMEOUT, client.query(&sql, &parameters)).await;
        let rows = rows.map_err(|_| too_slow())?.map_err(|error| match error.code() {
            Some(&SqlState::QUERY_CANCELED) => too_slow(),
            _ => failed(error),
        })?;
        let keys = query.by.len();
        let total = |row: &tokio_postgres::Row| {
            let values = (0..keys).map(|at| row.try_get(at)).collect::<Result<Vec<_>, _>>()?;
            let mut sums = [0; 8];
            for (at, sum) in sums.iter_mut().enumerate() {
                *sum = row.try_get(keys.saturating_add(at))?;
            }
            Ok(UsageTotal { keys: values, sums })
        };
        bounded(rows.iter().map(total).collect::<Result<_, _>>().map_err(failed)?)
    }

    async fn expire(&self, before: &str, most: u32) -> Result<u64, StoreError> {
        let (before, most) = (before.to_owned(), i64::from(most));
        self.execute(&DIALECT.expire(), &[&before, &most]).await
    }
}

async fn complete(client: &mut Client, completion: &Completion) -> Result<bool, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let record = transaction.query_opt(&DIALECT.find_result(), &[&completion.result]).await?;
    let Some(record) = record else { return Ok(false) };
    let (id, limits): (String, String) = (record.try_get(0)?, record.try_get(1)?);
    if let Some(CompletedLimits { limits, micro_usd }) = completion.complete(&limits) {
        transaction.execute(&DIALECT.complete_limits(), &[&id, &limits, &micro_usd]).await?;
    }
    let [input, cached, cache_write, output, reasoning, total] = &completion.counts;
    transaction
        .execute(
            &DIALECT.complete_counts(),
            &[&id, &completion.source, input, cached, cache_write, output, reasoning, total],
        )
        .await?;
    transaction.commit().await?;
    Ok(true)
}

/// Data that the server rejects stays rejected. Anything else may work later.
fn failed(error: tokio_postgres::Error) -> StoreError {
    // Classes 21 to 23: a wrong number of values, invalid data, and violated constraints.
    let is_of_data = error
        .code()
        .is_some_and(|code| ["21", "22", "23"].iter().any(|class| code.code().starts_with(class)));
    let message = message(&error);
    if is_of_data { StoreError::Rejected(message) } else { StoreError::Unavailable(message) }
}

/// The cause is not part of the error's own message.
fn message(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// The parts of a URL that decide about TLS, and the rest.
#[derive(Debug, PartialEq, Eq)]
struct TlsOptions {
    url: String,
    /// Whether to use TLS. The certificate is then always verified, so modes that fall back to an unprotected
    /// connection are rejected.
    is_used: bool,
    /// A file with the certificate authorities to trust instead of the system's.
    authorities: Option<PathBuf>,
}

impl TlsOptions {
    fn of(url: &str) -> Result<Self, &'static str> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut is_used, mut authorities, mut rest) = (false, None, Vec::new());
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("sslmode", "disable")) => is_used = false,
                Some(("sslmode", "require" | "verify-full")) => is_used = true,
                Some(("sslmode", _)) => return Err("sslmode must be require, verify-full or disable"),
                Some(("sslrootcert", file)) => authorities = Some(percent_decoded(file).as_ref().into()),
                _ => rest.push(part),
            }
        }
        if authorities.is_some() && !is_used {
            return Err("sslrootcert needs sslmode=require");
        }
        let rest = rest.join("&");
        let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{rest}") };
        Ok(Self { url, is_used, authorities })
    }
}

/// Trusts these certificate authorities, or the system's.
fn client_tls(authorities: Option<&Path>) -> Result<MakeRustlsConnect, StoreError> {
    let unusable = |error: String| StoreError::Rejected(format!("sslrootcert: {error}"));
    let certificates = match authorities {
        Some(file) => CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect)
            .map_err(|error| unusable(error.to_string()))?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(unusable("there is no certificate authority to trust".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_used_only_with_a_verified_certificate() {
        let read = |url: &str| TlsOptions::of(url).map(|tls| (tls.url, tls.is_used, tls.authorities));
        let plain = |url: &str, tls| Ok((url.to_owned(), tls, None));
        assert_eq!(read("postgres://h/d"), plain("postgres://h/d", false));
        assert_eq!(read("postgres://h/d?sslmode=require"), plain("postgres://h/d", true));
        let rest = read("postgres://h/d?a=b&sslmode=verify-full&c=d");
        assert_eq!(rest, plain("postgres://h/d?a=b&c=d", true));
        let own = read("postgres://h/d?sslmode=require&sslrootcert=%2Fca.crt");
        assert_eq!(own, Ok(("postgres://h/d".to_owned(), true, Some(PathBuf::from("/ca.crt")))));
        assert!(read("postgres://h/d?sslrootcert=/ca.crt").is_err());
        for weak in ["prefer", "allow", "verify-ca", ""] {
            assert!(read(&format!("postgres://h/d?sslmode={weak}")).is_err(), "{weak}");
        }
    }

    #[test]
    fn an_error_does_not_show_the_url() {
        for url in [
            "postgres://weir:hunter2@",
            "postgres://weir:hunter2@h/d?nonsense=hunter2",
            "postgres://weir:hunter2@h:hunter2/d",
        ] {
            if let Err(error) = PostgresStore::new(&Secret::new(url), None) {
                assert!(!error.to_string().contains("hunter2"), "{error}");
            }
        }
    }
}
