//! Classifies errors of Redis, and formats them without secrets.

use super::url::RedisUrl;
use crate::ledger::{StorageFault, Unavailable};
use crate::secret::without;
use redis::{ErrorKind, RedisError};

/// Returns why Redis did not execute a command.
pub fn unavailable(place: &RedisUrl, error: &RedisError) -> Unavailable {
    let (fault, hint) = fault(error);
    Unavailable::new(fault, format!("{}{hint}", told(place, error)))
}

/// Returns the error of a call in a batch, which its function replies with as a text: a code, and what went wrong.
pub fn error_of_call(text: &str) -> RedisError {
    let (code, detail) = text.split_once(' ').unwrap_or((text, ""));
    redis::make_extension_error(code.to_owned(), Some(detail.to_owned()))
}

/// Returns the fault, and what to do about it if the error does not say so.
fn fault(error: &RedisError) -> (StorageFault, &'static str) {
    match error.code() {
        Some("OOM") => (StorageFault::Full, ""),
        Some("READONLY" | "NOREPLICAS" | "MISCONF") => (StorageFault::ReadOnly, ""),
        Some("NOAUTH" | "WRONGPASS" | "NOPERM") => (StorageFault::Denied, ""),
        Some("MOVED" | "ASK") => {
            (StorageFault::Unsupported, ": this Redis is a node of a cluster; use redis+cluster://HOST:PORT")
        }
        Some("LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN") => {
            (StorageFault::Unreachable, "")
        }
        _ if error.kind() == ErrorKind::AuthenticationFailed => (StorageFault::Denied, ""),
        _ if error.is_io_error() || error.is_unrecoverable_error() => (StorageFault::Unreachable, ""),
        _ => by_message(&error.to_string()),
    }
}

/// Classifies errors that have no code of their own.
fn by_message(message: &str) -> (StorageFault, &'static str) {
    // Missing permissions of a script, in Redis 7.0, in newer versions and in Valkey.
    if ["user executing the script can't", "ACL failure in script", "NOPERM"]
        .iter()
        .any(|text| message.contains(text))
    {
        return (StorageFault::Denied, "");
    }
    if message.contains("unknown command") || message.contains("Unknown Redis command") {
        let needed = ": Weir needs Redis 7 or newer, or Valkey, with functions (FCALL and FUNCTION)";
        return (StorageFault::Unsupported, needed);
    }
    (StorageFault::Failed, "")
}

/// Formats an error. Removes the arguments of the command, including those of AUTH, which a server may repeat
/// when it rejects the command.
fn told(place: &RedisUrl, error: &RedisError) -> String {
    let error = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    };
    let (message, _) = error.split_once("with args beginning with").unwrap_or((&error, ""));
    without(message.trim_end_matches([' ', ',', ':']), place.secrets()).into_owned()
}
