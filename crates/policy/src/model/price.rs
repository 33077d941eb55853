//! Money: prices by model, and the cost of tokens. All amounts are whole micro-USD, so no fractions get lost.

use llm::response::Usage;

/// The number of micro-USD in one USD, and of tokens to which a price applies.
const MILLION: u128 = 1_000_000;

/// The price of a model's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// The model's name; `*` matches any characters.
    pub model: String,
    /// The prices of its tokens.
    pub tariff: Tariff,
}

/// Prices in micro-USD per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tariff {
    /// Prompt tokens.
    pub input: u64,
    /// Input tokens that were read from a cache.
    pub cached: u64,
    /// Input tokens that were written to a cache.
    pub cache_write: u64,
    /// Input tokens that were written to a cache for an hour.
    pub cache_write_1h: u64,
    /// Completion tokens.
    pub output: u64,
}

/// The charge of a rate for usage that becomes known later: a base, and an amount per million tokens of each
/// kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageCost {
    /// Charged regardless of the usage.
    pub base: u64,
    /// The prices of all tokens except reasoning.
    pub tariff: Tariff,
    /// The price of reasoning tokens, which are part of the output.
    pub reasoning: u64,
}

impl UsageCost {
    /// The cost of a unit that counts these kinds of tokens.
    pub fn tokens(input: bool, output: bool) -> Self {
        let [input, output] = [input, output].map(|counts| if counts { 1_000_000 } else { 0 });
        Self::from(Tariff { input, cached: input, cache_write: input, cache_write_1h: input, output })
    }

    /// A cost that does not depend on the usage.
    pub fn fixed(base: u64) -> Self {
        Self { base, ..Self::tokens(false, false) }
    }

    /// Returns what a response costs, rounded up and saturated.
    pub fn of(&self, usage: &Usage) -> u64 {
        let reasoning = usage.reasoning.min(usage.output);
        let sum = self.tariff.sum(usage, reasoning);
        let sum = sum.saturating_add(u128::from(reasoning).saturating_mul(u128::from(self.reasoning)));
        self.base.saturating_add(whole(sum))
    }

    /// Returns the cost that `cost` computes, if it is linear in the usage at all samples.
    pub fn fitted(mut cost: impl FnMut(&Usage) -> Option<u64>) -> Option<Self> {
        let base = cost(&Usage::default())?;
        let million = MILLION as u64;
        let input = Usage { input: million, total: million, ..Usage::default() };
        let output = Usage { output: million, total: million, ..Usage::default() };
        let mut slope = |usage: Usage| cost(&usage)?.checked_sub(base);
        let tariff = Tariff {
            input: slope(input)?,
            cached: slope(Usage { cached: million, ..input })?,
            cache_write: slope(Usage { cache_write: million, ..input })?,
            cache_write_1h: slope(Usage { cache_write: million, cache_write_1h: million, ..input })?,
            output: slope(output)?,
        };
        let fitted = Self { base, tariff, reasoning: slope(Usage { reasoning: million, ..output })? };
        let mut fits = |usage: &Usage| cost(usage).is_some_and(|cost| cost.abs_diff(fitted.of(usage)) <= 1);
        SAMPLES.iter().all(&mut fits).then_some(fitted)
    }
}

/// Samples of usage that reveal whether a cost is linear.
const SAMPLES: [Usage; 4] = [
    Usage { input: 7, output: 5, total: 12, cached: 2, cache_write: 2, cache_write_1h: 1, reasoning: 3 },
    Usage { input: 900, output: 90, total: 990, cached: 0, cache_write: 0, cache_write_1h: 0, reasoning: 0 },
    Usage {
        input: 30_000,
        output: 2_000,
        total: 32_000,
        cached: 20_000,
        cache_write: 3_000,
        cache_write_1h: 1_000,
        reasoning: 1_500,
    },
    Usage {
        input: 3_000_000,
        output: 2_000_000,
        total: 5_000_000,
        cached: 100_000,
        cache_write: 400_000,
        cache_write_1h: 200_000,
        reasoning: 50_000,
    },
];

impl From<Tariff> for UsageCost {
    fn from(tariff: Tariff) -> Self {
        Self { base: 0, tariff, reasoning: tariff.output }
    }
}

impl Price {
    /// Returns whether it applies to this model. An unknown model has an empty name.
    pub fn is_for(&self, model: &str) -> bool {
        glob(&self.model, model)
    }
}

impl Tariff {
    /// Returns what a response costs in micro-USD, rounded up and saturated.
    pub fn cost(&self, usage: &Usage) -> u64 {
        whole(self.sum(usage, 0))
    }

    /// Returns the cost in millionths of a micro-USD, without this part of the output.
    fn sum(&self, usage: &Usage, reasoning: u64) -> u128 {
        let cached = usage.cached.min(usage.input);
        // The part of a total beyond input and output has no price of its own, so it costs as much as output.
        let output = usage.total.saturating_sub(usage.input).max(usage.output);
        let fresh = usage.input.saturating_sub(cached);
        let written = usage.cache_write.min(fresh);
        let for_an_hour = usage.cache_write_1h.min(written);
        let parts = [
            (fresh.saturating_sub(written), self.input),
            (cached, self.cached),
            (written.saturating_sub(for_an_hour), self.cache_write),
            (for_an_hour, self.cache_write_1h),
            (output.saturating_sub(reasoning), self.output),
        ];
        parts
            .iter()
            .map(|(tokens, price)| u128::from(*tokens).saturating_mul(u128::from(*price)))
            .fold(0_u128, u128::saturating_add)
    }
}

/// Rounds up to whole micro-USD.
fn whole(millionths: u128) -> u64 {
    u64::try_from(millionths.div_ceil(MILLION)).unwrap_or(u64::MAX)
}

/// Returns the price of this model's tokens: the first entry that matches.
pub(crate) fn of(prices: &[Price], model: &str) -> Option<Tariff> {
    prices.iter().find(|price| price.is_for(model)).map(|price| price.tariff)
}

/// Returns the highest price of each kind of token over all models.
pub(crate) fn dearest(prices: &[Price]) -> Tariff {
    let none = Tariff { input: 0, cached: 0, cache_write: 0, cache_write_1h: 0, output: 0 };
    prices.iter().map(|price| price.tariff).fold(none, |one, other| Tariff {
        input: one.input.max(other.input),
        cached: one.cached.max(other.cached),
        cache_write: one.cache_write.max(other.cache_write),
        cache_write_1h: one.cache_write_1h.max(other.cache_write_1h),
        output: one.output.max(other.output),
    })
}

/// Parses USD, a decimal with up to six places, as micro-USD.
pub fn micro_usd(text: &str) -> Option<u64> {
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(places) || places.len() > 6 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let places: u64 = format!("{places:0<6}").parse().ok()?;
    let micro = whole.checked_mul(1_000_000)?.checked_add(places)?;
    i64::try_from(micro).is_ok().then_some(micro)
}

/// Formats micro-USD: `5.00`, `0.000125`.
pub fn usd_text(micro: u64) -> String {
    let places = format!("{:06}", micro % 1_000_000);
    let kept = places.trim_end_matches('0');
    format!("{}.{kept:0<2}", micro / 1_000_000)
}

/// Returns whether a name matches a pattern, in time proportional to the product of their lengths.
fn glob(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece).and_then(|at| rest.get(at.saturating_add(piece.len())..)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: u64, cached: u64, output: u64) -> Usage {
        Usage { input, cached, output, total: input.saturating_add(output), ..Usage::default() }
    }

    /// Cache writes cost as much as other input.
    fn tariff(input: u64, cached: u64, output: u64) -> Tariff {
        Tariff { input, cached, cache_write: input, cache_write_1h: input, output }
    }

    #[test]
    fn what_is_written_to_a_cache_has_prices_of_its_own() {
        let tariff = Tariff {
            input: 3_000_000,
            cached: 300_000,
            cache_write: 3_750_000,
            cache_write_1h: 6_000_000,
            output: 15_000_000,
        };
        let usage =
            |cache_write, cache_write_1h| Usage { cache_write, cache_write_1h, ..usage(1000, 400, 0) };
        assert_eq!(tariff.cost(&usage(0, 0)), 600 * 3 + 120);
        assert_eq!(tariff.cost(&usage(200, 0)), 400 * 3 + 120 + 750);
        assert_eq!(tariff.cost(&usage(200, 100)), 400 * 3 + 120 + 375 + 600);
        // A part that is larger than the whole counts as much as the whole.
        assert_eq!(tariff.cost(&usage(u64::MAX, u64::MAX)), 120 + 600 * 6);
    }

    #[test]
    fn a_cost_that_is_a_sum_of_products_is_known_by_samples() {
        let of = |cost: fn(&Usage) -> u64| UsageCost::fitted(|usage| Some(cost(usage)));
        let usage = Usage { cache_write: 200, cache_write_1h: 50, reasoning: 30, ..usage(1234, 300, 99) };
        for cost in [
            (|_| 10) as fn(&Usage) -> u64,
            |usage| usage.total,
            |usage| usage.input + 4 * usage.output,
            |usage| usage.output - usage.reasoning,
            |usage| 7 + (usage.input - usage.cached) / 2 + usage.cached / 20,
            |usage| 3 * usage.cache_write_1h + 2 * (usage.cache_write - usage.cache_write_1h),
        ] {
            let fitted = of(cost).unwrap();
            assert!(fitted.of(&usage).abs_diff(cost(&usage)) <= 1, "{fitted:?}");
        }
        for cost in [
            (|usage| if usage.total > 1000 { usage.total } else { 0 }) as fn(&Usage) -> u64,
            |usage| usage.total.min(100),
            |usage| 2_000_000_u64.saturating_sub(usage.total),
            |usage| usage.input * usage.output,
        ] {
            assert_eq!(of(cost), None);
        }
        assert_eq!(UsageCost::fitted(|_| None), None);
        let usd = UsageCost::from(tariff(3, 1, 5));
        assert_eq!(usd.of(&usage), usd.tariff.cost(&usage));
        assert_eq!(UsageCost::tokens(true, true).of(&usage), 1333);
        assert_eq!(UsageCost::tokens(true, false).of(&usage), 1234);
        assert_eq!(UsageCost::tokens(false, true).of(&usage), 99);
        assert_eq!(UsageCost::fixed(u64::MAX).of(&usage), u64::MAX);
    }

    #[test]
    fn money_is_rounded_up_to_a_whole_micro_usd() {
        let tariff = self::tariff(2_500_000, 1_250_000, 10_000_000);
        let table = [
            (usage(0, 0, 0), 0),
            (usage(1, 0, 0), 3),
            (usage(2, 0, 0), 5),
            (usage(1000, 0, 500), 7500),
            (usage(1000, 400, 500), 7000),
            // If more tokens are cached than there are input tokens, all input counts as cached.
            (usage(10, u64::MAX, 0), 13),
            (usage(u64::MAX, 0, u64::MAX), u64::MAX),
            (Usage { input: 10, output: 5, total: 20, ..Usage::default() }, 125),
        ];
        for (usage, micro) in table {
            assert_eq!(tariff.cost(&usage), micro, "{usage:?}");
        }
        let cheap = self::tariff(1, 0, 0);
        assert_eq!((cheap.cost(&usage(1, 0, 0)), cheap.cost(&usage(1, 1, 0))), (1, 0));
    }

    #[test]
    fn the_dearest_price_is_that_of_each_kind_of_token() {
        let price = |model: &str, input, cached, output| Price {
            model: model.to_owned(),
            tariff: tariff(input, cached, output),
        };
        let prices = [price("a", 5, 1, 7), price("b", 2, 2, 9), price("c", 3, 0, 8)];
        assert_eq!(dearest(&prices), tariff(5, 2, 9));
        assert_eq!(of(&prices, "b"), Some(prices[1].tariff));
        assert_eq!((of(&prices, "B"), of(&prices, ""), of(&prices, "x/b")), (None, None, None));
        let usage = usage(1_000_000, 500_000, 1_000_000);
        assert!(prices.iter().all(|price| price.tariff.cost(&usage) <= dearest(&prices).cost(&usage)));
    }

    #[test]
    fn usd_have_up_to_six_places() {
        let table = [
            ("5", Some(5_000_000)),
            ("5.00", Some(5_000_000)),
            ("0.000001", Some(1)),
            ("2.5", Some(2_500_000)),
            ("9223372036854.775807", Some(i64::MAX as u64)),
            ("9223372036854.775808", None),
            ("99999999999999999999", None),
            ("0.0000001", None),
            (".5", None),
            ("5.", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("1,5", None),
            ("", None),
        ];
        for (text, micro) in table {
            assert_eq!(micro_usd(text), micro, "{text:?}");
        }
        let told: Vec<_> = [5_000_000, 1, 125_000, 0, 1_234_560].map(usd_text).into();
        assert_eq!(told, ["5.00", "0.000001", "0.125", "0.00", "1.23456"]);
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        let matching = [
            ("*", ""),
            ("*", "gpt-4o"),
            ("gpt-4o", "gpt-4o"),
            ("gpt-4o*", "gpt-4o-mini"),
            ("gpt-4o*", "gpt-4o"),
            ("*/gpt-*-mini", "openai/gpt-4o-mini"),
            ("a*b*c", "a-b-b-c"),
            ("**", "x"),
        ];
        let other = [
            ("gpt-4o", "gpt-4o-mini"),
            ("gpt-4o*", "GPT-4o"),
            ("a*b*c", "acb"),
            ("a*a", "a"),
            ("", "x"),
            ("x*", ""),
        ];
        assert!(matching.iter().all(|(pattern, name)| glob(pattern, name)));
        assert!(!other.iter().any(|(pattern, name)| glob(pattern, name)));
    }
}
