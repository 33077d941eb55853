//! Which shards share a server, and so its memory.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The server of each shard, as last seen.
#[derive(Default)]
pub struct ShardNodes(Mutex<HashMap<usize, u64>>);

impl ShardNodes {
    /// Records the server of a shard. Returns the number of shards on this server, which is at least 1.
    pub fn learn(&self, shard: usize, server: u64) -> u64 {
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        servers.insert(shard, server);
        (servers.values().filter(|of| **of == server).count() as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_of_a_server_share_its_memory() {
        let nodes = ShardNodes::default();
        assert_eq!([(0, 7), (1, 7), (2, 9)].map(|(shard, server)| nodes.learn(shard, server)), [1, 2, 1]);
        assert_eq!(nodes.learn(2, 7), 3, "the shard has moved");
        assert_eq!(nodes.learn(0, 7), 3);
    }
}
