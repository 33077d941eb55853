//! CEL rules that the API server checks, with the message for each violation.

pub(super) const EXTRACTED_ONCE: (&str, &str) = (
    "!has(self.usage) || !has(self.usage.pointers) || !(has(self.dataExtraction) \
     || has(self.defaults) && has(self.defaults.dataExtraction) \
     || has(self.overrides) && has(self.overrides.dataExtraction))",
    "usage.pointers and dataExtraction are mutually exclusive",
);

pub(super) const PRICED: (&str, &str) = (
    "has(self.prices) || ( \
     (!has(self.limits) || self.limits.all(name, self.limits[name].rates.all(rate, !has(rate.unit) || rate.unit != 'usd' || has(rate.cost)))) \
     && (!has(self.defaults) || self.defaults.limits.all(name, self.defaults.limits[name].rates.all(rate, \
     !has(rate.unit) || rate.unit != 'usd' || has(rate.cost)))) \
     && (!has(self.overrides) || self.overrides.limits.all(name, self.overrides.limits[name].rates.all(rate, \
     !has(rate.unit) || rate.unit != 'usd' || has(rate.cost)))))",
    "a rate in usd requires prices or a cost",
);

pub(super) const LIMIT_NAMES: (&str, &str) = (
    "self.all(name, name.matches('^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$'))",
    "the name of a limit has at most 63 letters, digits, - and _, with a letter or digit at both ends",
);

pub(super) const COUNT_NAMES: (&str, &str) = (
    "self.all(name, name.matches('^[A-Za-z_][A-Za-z0-9_]{0,62}$'))",
    "the name of a count has at most 63 letters, digits and _, and does not begin with a digit",
);

pub(super) const DISTINCT_RATES: (&str, &str) = (
    // Rates with costs, window types or time zones are compared by the adapter, because comparing long texts
    // exceeds the API server's cost limit.
    "self.all(a, has(a.cost) || has(a.timeZone) || has(a.windowType) \
     || self.exists_one(b, !has(b.cost) && !has(b.timeZone) && !has(b.windowType) \
     && (has(a.unit) ? a.unit : 'tokens') == (has(b.unit) ? b.unit : 'tokens') \
     && (has(a.window) ? a.window : '') == (has(b.window) ? b.window : '') \
     && (has(a.period) ? a.period : '') == (has(b.period) ? b.period : '')))",
    "two rates count the same thing in the same window",
);

pub(super) const HEADER_NAMES: (&str, &str) = (
    "self.all(name, name.matches('^[A-Za-z0-9!#$%&\\'*+.^_`|~-]+$') \
     && !(name.lowerAscii() in ['connection', 'content-length', 'transfer-encoding', 'upgrade']))",
    "is not a valid header name, or Envoy sets this header itself",
);

pub(super) const HEADER_VALUES: (&str, &str) = (
    "self.all(name, !self[name].matches('[[:cntrl:]]'))",
    "header values must not contain control characters",
);

pub(super) const ONE_LEVEL: (&str, &str) = (
    "self.all(target, (target.kind == 'Gateway') == (self[0].kind == 'Gateway') \
     && has(target.sectionName) == has(self[0].sectionName))",
    "targets must be all Gateways or all routes, and all or none must have sectionName",
);
