//! What is killed, and how often.

use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    Adapter,
    Envoy,
    Redis,
}

pub const VICTIMS: [Victim; 3] = [Victim::Adapter, Victim::Envoy, Victim::Redis];

/// How many times each victim has been killed. A kill counts once the process has ended.
#[derive(Default)]
pub struct Kills([AtomicUsize; VICTIMS.len()]);

impl Kills {
    pub fn count(&self, victim: Victim) {
        self.0[victim as usize].fetch_add(1, Ordering::SeqCst);
    }

    pub fn of(&self, victim: Victim) -> usize {
        self.0[victim as usize].load(Ordering::SeqCst)
    }
}
