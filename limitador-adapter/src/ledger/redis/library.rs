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

/// What the functions have in common. Each file uses what those before it define.
const COMMON: &str = concat!(
    include_str!("common.lua"),
    include_str!("buckets.lua"),
    include_str!("charges.lua"),
    include_str!("thresholds.lua"),
    include_str!("reservations.lua"),
    include_str!("lapses.lua"),
    include_str!("begin.lua"),
    include_str!("stored.lua"),
    include_str!("batch.lua"),
);

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    /// Returns the commands that these sources call.
    fn commands<'s>(source: &'s str, call: &str) -> BTreeSet<&'s str> {
        source.split(call).skip(1).filter_map(|rest| rest.split(['\'', '"']).next()).collect()
    }

    #[test]
    fn the_probe_calls_every_command() {
        let probe = commands(include_str!("probe.lua"), "redis.call('");
        let mut used = BTreeSet::new();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ledger/redis");
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "lua") {
                continue;
            }
            let source = fs::read_to_string(path).unwrap();
            used.extend(commands(&source, "redis.call('").into_iter().map(str::to_owned));
        }
        // `read_all` calls these directly.
        used.extend(["ZSCAN", "MGET"].map(str::to_owned));
        let probe: BTreeSet<_> = probe.into_iter().map(str::to_owned).collect();
        assert_eq!(probe, used);
    }
}
