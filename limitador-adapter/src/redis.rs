//! The ledger in a Redis (7 or newer, or Valkey): several adapters share every bucket and every hold exactly.
//!
//! Each call is one script, so one round trip however many limits there are, and nobody sees half of it. The time is the
//! server's. What the scripts keep is told in `redis/common.lua`. Reserve and commit may be repeated and may go to
//! different adapters; a hit has no id, so one whose answer was lost may have been charged.

mod link;
mod name;
pub mod place;

use crate::ledger::{
    Charge, Hit, Hold, Key, Ledger, Outcome, Reading, Settled, Size, Status, Take, Turn, Unavailable, When,
};
use crate::moment::Moment;
use link::{Failure, Link, Script};
use place::Place;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The largest number that the scripts count exactly; larger ones stand for it.
pub const MOST: u64 = (1 << 53) - 1;

/// No hold lives longer.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Buckets that one script looks at, when all are gone through: a millisecond or two for everyone else.
const BATCH: usize = 500;

macro_rules! script {
    ($name:literal) => {
        script!("", $name)
    };
    ($first:literal, $name:literal) => {
        Script::new(concat!(
            $first,
            include_str!("redis/common.lua"),
            include_str!(concat!("redis/", $name, ".lua"))
        ))
    };
}

/// What lets go or has been used is done by a Redis whose memory is full as well: refusing it would keep it full.
macro_rules! script_when_full {
    ($name:literal) => {
        script!("#!lua flags=allow-oom\n", $name)
    };
}

/// Holds and charges in a Redis.
pub struct RedisLedger {
    link: Link,
    most: usize,
    clock: Clock,
    dropped: AtomicU64,
    reserve: Script,
    commit: Script,
    hit: Script,
    sweep: Script,
}

/// Whose time counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clock {
    Server,
    Caller,
}

impl RedisLedger {
    /// In that Redis, which need not be there yet; never more than `most` buckets.
    pub fn new(place: Place, most: usize) -> Result<Self, String> {
        Ok(Self {
            link: Link::new(place)?,
            most,
            clock: Clock::Server,
            dropped: AtomicU64::new(0),
            reserve: script!("reserve"),
            commit: script_when_full!("commit"),
            hit: script!("hit"),
            sweep: script_when_full!("sweep"),
        })
    }

    /// Takes the calls' time instead of the server's: for tests that cannot wait for a month to end.
    pub fn with_the_callers_time(self) -> Self {
        Self { clock: Clock::Caller, ..self }
    }

    /// Waits so long for an answer of Redis, and for a connection: for tests on machines that are busy otherwise.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { link: self.link.with_patience(patience), ..self }
    }

    /// The first argument of each script.
    fn time(&self, now: Moment) -> String {
        match self.clock {
            Clock::Server => String::new(),
            Clock::Caller => now.unix.as_millis().to_string(),
        }
    }

    async fn run(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[String],
    ) -> Result<Answer, Unavailable> {
        let answer = self.link.run(script, keys, arguments).await.map_err(|failure| match failure {
            Failure::Full => Unavailable::Full(self.most),
            Failure::Unavailable(unavailable) => unavailable,
        })?;
        Ok(Answer(answer.into_iter()))
    }

    /// Forgets what is over, of so many buckets, and tells the size.
    async fn sweep_some(&self, at_most: usize, now: Moment) -> Result<Swept, Unavailable> {
        let arguments = [self.time(now), at_most.to_string()];
        let mut answer = self.run(&self.sweep, &keys([], []), &arguments).await?;
        let (now, more) = (Duration::from_millis(answer.next()?), answer.next()? > 0);
        let (counters, reservations, holds) = (answer.size()?, answer.size()?, answer.size()?);
        let dropped = self.dropped.load(Ordering::Relaxed);
        let size = Size { counters, reservations, holds, settled: None, forgotten: 0, dropped };
        Ok(Swept { now, more, size })
    }
}

struct Swept {
    now: Duration,
    more: bool,
    size: Size,
}

/// What a script tells: whole numbers.
struct Answer(std::vec::IntoIter<i64>);

impl Answer {
    fn next(&mut self) -> Result<u64, Unavailable> {
        let number = self.0.next().and_then(|number| u64::try_from(number).ok());
        number.ok_or_else(|| Unavailable::Storage("a script of ours answered too little".to_owned()))
    }

    fn size(&mut self) -> Result<usize, Unavailable> {
        Ok(usize::try_from(self.next()?).unwrap_or(usize::MAX))
    }

    /// One of each bucket: its maximum, and whether it refuses for want of room.
    fn statuses(&mut self, buckets: impl Iterator<Item = (u64, bool)>) -> Result<Vec<Status>, Unavailable> {
        let status = |(max, enforced)| {
            let full = self.next()? > 0;
            let (limited, excused) = (full && enforced, full && !enforced);
            let (remaining, reset) = (self.next()?, Duration::from_millis(self.next()?));
            Ok(Status { limited, excused, max, remaining, reset })
        };
        buckets.map(status).collect()
    }
}

/// The keys of a script: those that all have, its own, and the buckets.
fn keys<'a>(
    own: impl IntoIterator<Item = String>,
    buckets: impl IntoIterator<Item = &'a Arc<Key>>,
) -> Vec<String> {
    let common = ["lapses", "buckets", "holds"].map(|own| format!("{}{own}", name::PREFIX));
    common.into_iter().chain(own).chain(buckets.into_iter().map(|key| name::of(key))).collect()
}

fn reservation(id: &str) -> String {
    format!("{}r:{id}", name::PREFIX)
}

fn flag(flag: bool) -> String {
    if flag { "1" } else { "0" }.to_owned()
}

fn amount(amount: u64) -> String {
    amount.min(MOST).to_string()
}

#[tonic::async_trait]
impl Ledger for RedisLedger {
    async fn reserve(&self, id: &str, holds: Vec<Hold>, now: Moment) -> Result<Outcome, Unavailable> {
        let keys = keys([reservation(id)], holds.iter().map(|hold| &hold.key));
        let mut arguments = vec![self.time(now), id.to_owned(), self.most.to_string()];
        for hold in &holds {
            arguments.extend([
                name::window(hold.key.window),
                amount(hold.amount.max(1)),
                amount(hold.max),
                hold.ttl.min(YEAR).as_millis().to_string(),
                flag(hold.enforced),
                flag(hold.take == Take::Charge),
            ]);
        }
        let mut answer = self.run(&self.reserve, &keys, &arguments).await?;
        let admitted = answer.next()? > 0;
        let turn = match answer.next()? {
            0 => Turn::First,
            1 => Turn::Repeated,
            _ => Turn::Late,
        };
        let statuses = answer.statuses(holds.iter().map(|hold| (hold.max, hold.enforced)))?;
        Ok(Outcome { admitted, turn, statuses })
    }

    async fn commit(&self, id: &str, charges: Vec<Charge>, now: Moment) -> Result<Settled, Unavailable> {
        let keys = keys([reservation(id)], charges.iter().map(|charge| &charge.key));
        let mut arguments = vec![self.time(now), id.to_owned(), self.most.to_string()];
        for charge in &charges {
            arguments.extend([name::window(charge.key.window), amount(charge.amount)]);
        }
        let mut answer = self.run(&self.commit, &keys, &arguments).await?;
        let settled = match answer.next()? {
            0 => Settled::Released,
            1 => Settled::Charged,
            _ => Settled::AlreadySettled,
        };
        self.dropped.fetch_add(answer.next()?, Ordering::Relaxed);
        Ok(settled)
    }

    async fn hit(&self, hits: Vec<Hit>, now: Moment) -> Result<Outcome, Unavailable> {
        let keys = keys([], hits.iter().map(|hit| &hit.key));
        let mut arguments = vec![self.time(now), self.most.to_string()];
        for hit in &hits {
            arguments.extend([
                name::window(hit.key.window),
                amount(hit.need.max(1)),
                amount(hit.max),
                amount(hit.charge),
                flag(hit.when == When::Always),
            ]);
        }
        let mut answer = self.run(&self.hit, &keys, &arguments).await?;
        let admitted = answer.next()? > 0;
        self.dropped.fetch_add(answer.next()?, Ordering::Relaxed);
        let statuses = answer.statuses(hits.iter().map(|hit| (hit.max, true)))?;
        Ok(Outcome { admitted, turn: Turn::First, statuses })
    }

    async fn readings(&self, now: Moment) -> Result<Vec<Reading>, Unavailable> {
        let now = self.sweep_some(0, now).await?.now;
        let all = format!("{}buckets", name::PREFIX);
        let (mut readings, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let asked = ["ZSCAN", &all, &cursor, "COUNT", &BATCH.to_string()];
            let (next, page): (String, Vec<(String, f64)>) = self.link.ask(&asked).await?;
            let names: Vec<_> = page.iter().map(|(name, _)| name.as_str()).collect();
            if !names.is_empty() {
                let asked: Vec<_> = std::iter::once("MGET").chain(names.iter().copied()).collect();
                let records: Vec<Option<String>> = self.link.ask(&asked).await?;
                readings.extend(
                    names.iter().zip(records).filter_map(|(name, record)| reading(name, &record?, now)),
                );
            }
            if next == "0" {
                break;
            }
            cursor = next;
        }
        // A page may repeat what another had.
        readings.sort_by(|a, b| a.key.cmp(&b.key));
        readings.dedup_by(|a, b| a.key == b.key);
        Ok(readings)
    }

    async fn size(&self) -> Result<Size, Unavailable> {
        Ok(self.sweep_some(0, Moment::now()).await?.size)
    }

    async fn sweep(&self, now: Moment) -> Result<(), Unavailable> {
        while self.sweep_some(BATCH, now).await?.more {}
        Ok(())
    }
}

/// A record of a bucket, for a person; `None`: it is over.
fn reading(name: &str, record: &str, now: Duration) -> Option<Reading> {
    let mut numbers = record.split(' ').map(str::parse::<u64>);
    let mut number = || numbers.next()?.ok();
    let (used, end, held) = (number()?, Duration::from_millis(number()?), number()?);
    let (used, reset) = if end > now { (used, Some(end - now)) } else { (0, None) };
    (used > 0 || held > 0).then_some(Reading { key: Arc::new(name::key(name)?), used, held, reset })
}
