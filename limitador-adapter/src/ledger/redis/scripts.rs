//! The scripts. One set is shared by all shards.

use super::connection::Script;

macro_rules! script {
    ($($name:literal),+) => {
        script!(of "", $($name),+)
    };
    (of $first:literal, $($name:literal),+) => {
        Script::new(concat!($first, include_str!("common.lua"), $(include_str!(concat!($name, ".lua"))),+))
    };
}

/// Scripts that release holds or charge usage also run when the server's memory is full. Otherwise it would
/// stay full.
macro_rules! script_when_full {
    ($($name:literal),+) => {
        script!(of "#!lua flags=allow-oom\n", $($name),+)
    };
}

/// A script for each kind of call.
pub struct Scripts {
    pub reserve: Script,
    pub raise: Script,
    pub cancel: Script,
    pub commit: Script,
    pub see: Script,
    pub hit: Script,
    pub reset: Script,
    pub grant: Script,
    pub read: Script,
    pub sweep: Script,
    pub attend: Script,
    pub gone: Script,
    pub ready: Script,
    pub memory: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            reserve: script!("reserve", "batch"),
            raise: script_when_full!("raise"),
            cancel: script_when_full!("cancel"),
            commit: script_when_full!("stored", "commit", "batch"),
            see: script_when_full!("stored", "see"),
            hit: script!("hit", "batch"),
            reset: script_when_full!("reset"),
            grant: script_when_full!("grant"),
            read: script_when_full!("read"),
            sweep: script_when_full!("sweep"),
            attend: script_when_full!("attend"),
            gone: script_when_full!("gone"),
            ready: Script::new(concat!("#!lua\n", include_str!("ready.lua"))),
            memory: Script::new(concat!("#!lua flags=allow-oom\n", include_str!("memory.lua"))),
        }
    }
}
