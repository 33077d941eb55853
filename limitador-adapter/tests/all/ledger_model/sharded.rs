//! Several shards agree with the model in every story that filters can cause.

use super::*;
use crate::storages::in_shards;

/// What a reservation's filter does again if it repeats a call.
#[derive(Default)]
struct Exchange {
    reserved: Option<Vec<Want>>,
    committed: Option<Vec<(Bucket, u64)>>,
}

/// Returns the part of a story that filters can cause. A filter repeats a call with the same contents, and names
/// the buckets of its holds in its commits and raises. Otherwise, a shard may not learn that a reservation of
/// another shard is over, until its hold lapses.
fn of_filters(Story { before_change, mut policy, mut steps }: Story) -> Story {
    for rate in &mut policy {
        // A refused request may leave an empty slot in a sliding window, which the model does not have.
        if let (Unit::Requests, Window::Sliding(length)) = (rate.unit, &rate.window) {
            rate.window = Window::Fixed(*length + Duration::from_secs(1000));
        }
    }
    let now = before_change.map_or_else(|| Moment::now().unix.as_secs() + 1, before_the_next_change);
    let mut model = Model { now, ..Model::default() };
    let mut exchanges: BTreeMap<Id, Exchange> = BTreeMap::new();
    steps.retain_mut(|step| {
        match step {
            Step::Reserve { id, wants } => {
                let exchange = exchanges.entry((model.age, *id)).or_default();
                match (&exchange.reserved, &exchange.committed) {
                    (Some(reserved), _) => wants.clone_from(reserved),
                    // The commit has named the same buckets.
                    (None, Some(committed)) if !committed.is_empty() => {
                        let Some(like) = wants.first().cloned() else { return false };
                        let want =
                            |(bucket, _): &(Bucket, u64)| Want { bucket: *bucket, amount: 1, ..like.clone() };
                        *wants = committed.iter().map(want).collect();
                    }
                    (None, _) => {}
                }
                if wants.is_empty() {
                    return false;
                }
                // In the model, a reservation lapses as a whole with its last hold. Shards lapse separately.
                let ttl = wants.iter().map(|want| want.ttl).min().unwrap_or_default();
                wants.iter_mut().for_each(|want| want.ttl = ttl);
                if model.reserve(&policy, *id, wants) == (true, Idempotency::First) {
                    exchange.reserved = Some(wants.clone());
                }
            }
            Step::Commit { id, charges } => {
                let exchange = exchanges.entry((model.age, *id)).or_default();
                if let Some(reserved) = &exchange.reserved {
                    charges.retain(|(bucket, _)| reserved.iter().any(|want| want.bucket == *bucket));
                }
                for want in exchange.reserved.iter().flatten() {
                    if charges.iter().all(|(bucket, _)| *bucket != want.bucket) {
                        charges.push((want.bucket, 0));
                    }
                }
                charges.clone_from(exchange.committed.get_or_insert_with(|| charges.clone()));
                model.commit(&policy, *id, charges);
            }
            Step::Raise { id, holds } => {
                let exchange = exchanges.entry((model.age, *id)).or_default();
                let reserved: Vec<_> = exchange.reserved.iter().flatten().map(|want| want.bucket).collect();
                holds.retain(|(bucket, ..)| reserved.contains(bucket));
                if holds.is_empty() {
                    return false;
                }
                model.raise(&policy, *id, holds);
            }
            Step::Reset(bucket) => {
                model.reset(*bucket);
            }
            Step::Grant { bucket, .. } if policy[bucket.0].unit == Unit::Concurrency => {}
            Step::Grant { bucket, amount, id } => {
                model.grant(&policy, *bucket, *amount, *id);
            }
            Step::Wait(seconds) => model.pass(&policy, *seconds),
            Step::Sweep => {}
            Step::Die(worker) => model.die(&policy, *worker),
        }
        true
    });
    Story { before_change, policy, steps }
}

#[test]
fn any_story_of_two_adapters_on_shards_agrees_with_the_model() {
    let redis = Redis::start();
    let adapters = |_| {
        redis.command(&["FLUSHALL"]);
        (0..2).map(|one| in_shards(&redis, 0, 1000, one * 40 * 86_400_000)).collect()
    };
    every_story_of(60, story().prop_map(of_filters), adapters);
}

/// A shard where nothing was charged forgets a reservation, so it holds again if the reserve arrives late.
#[test]
fn a_late_reserve_shows_the_window_of_a_shard_that_has_forgotten_it() {
    let (charged, full) = ((0, 1), (0, 0));
    let want = |bucket, amount, max, ttl, enforced| Want { bucket, amount, max, ttl, enforced };
    let story = Story {
        before_change: None,
        policy: vec![Rate {
            unit: Unit::Tokens,
            window: Window::Sliding(Duration::from_secs(158)),
            max: 71,
            charges_lapsed: true,
        }],
        steps: vec![
            Step::Commit { id: 3, charges: vec![(full, 41)] },
            Step::Reserve { id: 2, wants: vec![want(full, 0, None, 1, true)] },
            Step::Commit { id: 1, charges: vec![(charged, 1), (full, 0)] },
            Step::Wait(10),
            Step::Reserve {
                id: 1,
                wants: vec![want(charged, 1, Some(2), 23, false), want(full, 1, Some(2), 23, false)],
            },
        ],
    };
    let redis = Redis::start();
    let adapters = |_| (0..2).map(|one| in_shards(&redis, 0, 1000, one * 40 * 86_400_000)).collect();
    Runtime::new().unwrap().block_on(play(adapters, &story, |_| {}));
}
