//! Finite state entropy (RFC 8878, section 4.1): tables that convert bits to symbols.

use super::bits::{BackwardBits, ForwardBits};

/// The largest table of any kind.
const MAX_STATES: usize = 1 << 9;
/// An upper bound on the symbols of all kinds.
const MAX_SYMBOLS: usize = 256;

#[derive(Clone, Copy, Debug, Default)]
struct FseState {
    symbol: u8,
    /// The number of bits to read. Their value plus `base` is the next state.
    bits: u8,
    base: u16,
}

#[derive(Clone, Debug)]
pub(super) struct Table {
    states: [FseState; MAX_STATES],
    /// The number of bits that select the first state.
    pub(super) log: u32,
    /// Whether a later block may use it again.
    pub(super) is_set: bool,
}

impl Default for Table {
    fn default() -> Self {
        Self { states: [FseState::default(); MAX_STATES], log: 0, is_set: false }
    }
}

impl Table {
    /// Creates a table with a single symbol.
    pub(super) fn repeat(&mut self, symbol: u8) {
        if let Some(first) = self.states.first_mut() {
            *first = FseState { symbol, bits: 0, base: 0 };
        }
        (self.log, self.is_set) = (0, true);
    }

    /// Reads the description of a table with at most this many symbols and 2 to the power of `most_log`
    /// states. Returns the rest.
    pub(super) fn read<'a>(&mut self, bytes: &'a [u8], most_log: u32, symbols: usize) -> Option<&'a [u8]> {
        let mut bits = ForwardBits::new(bytes);
        let log = bits.take(4)?.saturating_add(5);
        if log > most_log {
            return None;
        }
        let mut shares = [0i16; MAX_SYMBOLS];
        let mut rest = 1u32 << log;
        let mut symbol = 0usize;
        while rest > 0 {
            let share = share(&mut bits, rest)?;
            rest = rest.checked_sub(u32::from(share.unsigned_abs()))?;
            *shares.get_mut(..symbols)?.get_mut(symbol)? = share;
            symbol = symbol.saturating_add(1);
            let mut zeros = if share == 0 { 3 } else { 0 };
            while zeros == 3 {
                zeros = bits.take(2)?;
                symbol = symbol.saturating_add(zeros as usize);
            }
        }
        self.build(shares.get(..symbol)?, log)?;
        Some(bits.rest())
    }

    /// Builds the table in which each symbol has its share of the states. A share of -1 means less than one
    /// state.
    pub(super) fn build(&mut self, shares: &[i16], log: u32) -> Option<()> {
        self.is_set = false;
        let size = 1usize << log;
        let states = self.states.get_mut(..size)?;
        let mut next = [0u16; MAX_SYMBOLS];
        let mut end = size;
        for (symbol, share) in (0u8..).zip(shares) {
            *next.get_mut(usize::from(symbol))? = share.unsigned_abs();
            if *share < 0 {
                end = end.checked_sub(1)?;
                states.get_mut(end)?.symbol = symbol;
            }
        }
        let (step, mask) = ((size >> 1).saturating_add(size >> 3).saturating_add(3), size.saturating_sub(1));
        let mut at = 0usize;
        for (symbol, share) in (0u8..).zip(shares) {
            for _ in 0..*share {
                states.get_mut(at)?.symbol = symbol;
                at = at.saturating_add(step) & mask;
                // The states from `end` on are taken by the symbols with a share of -1.
                let mut tries = 0usize;
                while at >= end && tries < size {
                    at = at.saturating_add(step) & mask;
                    tries = tries.saturating_add(1);
                }
            }
        }
        if at != 0 {
            return None;
        }
        for state in states {
            let number = next.get_mut(usize::from(state.symbol))?;
            let bits = log.checked_sub(number.checked_ilog2()?)?;
            state.bits = u8::try_from(bits).ok()?;
            state.base = u16::try_from((usize::from(*number) << bits).checked_sub(size)?).ok()?;
            *number = number.saturating_add(1);
        }
        (self.log, self.is_set) = (log, true);
        Some(())
    }

    #[inline(always)]
    pub(super) fn symbol(&self, state: usize) -> u8 {
        self.states.get(state).copied().unwrap_or_default().symbol
    }

    #[inline(always)]
    pub(super) fn next(&self, state: usize, bits: &mut BackwardBits<'_>) -> usize {
        let state = self.states.get(state).copied().unwrap_or_default();
        usize::from(state.base).saturating_add(bits.take(u32::from(state.bits)))
    }
}

/// Reads how many of the remaining states belong to the next symbol. Small numbers take one bit fewer.
fn share(bits: &mut ForwardBits<'_>, rest: u32) -> Option<i16> {
    let width = rest.saturating_add(1).ilog2().saturating_add(1);
    let value = bits.take(width)?;
    let low = (1u32 << width.saturating_sub(1)).saturating_sub(1);
    let threshold = (1u32 << width).saturating_sub(rest.saturating_add(2));
    let value = if value & low < threshold {
        bits.back();
        value & low
    } else if value > low {
        value.saturating_sub(threshold)
    } else {
        value
    };
    i16::try_from(value).ok()?.checked_sub(1)
}
