//! A clock that does not run backwards, made of one that can be set back.

use std::cell::Cell;

/// Goes on from where it was when the clock that it is told is set back.
#[derive(Debug, Default)]
pub struct Clock {
    last: Cell<u64>,
    behind: Cell<u64>,
}

impl Clock {
    /// This clock's time, by the other's.
    pub fn at(&self, wall: u64) -> u64 {
        let set_back = self.last.replace(wall).saturating_sub(wall);
        self.behind.set(self.behind.get().saturating_add(set_back));
        wall.saturating_add(self.behind.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_goes_on() {
        let clock = Clock::default();
        let times = [1_000, 1_500, 100, 200, 9_000].map(|wall| clock.at(wall));
        assert_eq!(times, [1_000, 1_500, 1_500, 1_600, 10_400]);
    }
}
