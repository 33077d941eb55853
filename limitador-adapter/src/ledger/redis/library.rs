//! The functions that Redis runs, as one library of Redis Functions. Redis compiles it when it is loaded, so a call
//! costs only what its function does. With scripts, a third of a call was the definition of their functions.
//!
//! Redis keeps the library with its data and replicates it. Its name contains a hash of its text, so adapters of
//! different versions each have their own. Whoever finds that a server does not have it loads it.

use crate::digest::half_sha256;
use redis::{Cmd, RedisError};
use std::sync::LazyLock;

/// Declares the functions. Each is defined in a file with its name.
macro_rules! functions {
    ($($function:ident: $name:literal),+ $(,)?) => {
        /// A function of the library.
        #[derive(Clone, Copy, Debug)]
        pub enum Function {
            $($function),+
        }

        impl Function {
            const fn name(self) -> &'static str {
                match self {
                    $(Self::$function => $name),+
                }
            }
        }

        const FUNCTIONS: &str = concat!($("do\n", include_str!(concat!($name, ".lua")), "end\n"),+);
    };
}

functions! {
    Reserve: "reserve",
    Raise: "raise",
    Cancel: "cancel",
    Commit: "commit",
    See: "see",
    Hit: "hit",
    Reset: "reset",
    Grant: "grant",
    Read: "read",
    Sweep: "sweep",
    Attend: "attend",
    Gone: "gone",
    Ready: "ready",
    Memory: "memory",
    Probe: "probe",
}

const COMMON: &str =
    concat!(include_str!("common.lua"), include_str!("stored.lua"), include_str!("batch.lua"));

struct Library {
    name: String,
    text: String,
}

static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let name = format!("weir_{}", half_sha256([COMMON, FUNCTIONS].concat()));
    let text = format!("#!lua name={name}\nlocal LIBRARY = '{name}'\n{COMMON}{FUNCTIONS}");
    Library { name, text }
});

/// Returns the command that calls a function.
pub fn call(function: Function, keys: &[String], arguments: &[String]) -> Cmd {
    let mut call = redis::cmd("FCALL");
    call.arg(format!("{}_{}", LIBRARY.name, function.name())).arg(keys.len()).arg(keys).arg(arguments);
    call
}

/// Returns the command that loads the library. In a cluster, it is sent to all masters.
pub fn load() -> Cmd {
    let mut load = redis::cmd("FUNCTION");
    load.arg("LOAD").arg("REPLACE").arg(&LIBRARY.text);
    load
}

/// Returns whether the server does not have the library, so that it has not executed the call.
pub fn is_missing(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("Function not found"))
}
