//! A real Redis Cluster: shards on several nodes, nodes that fail, and slots that move while requests run.

use crate::ledger::key;
use crate::redis::{books, charge, is_a_place, once_it_works, served, tokens};
use e2e::process::free_port;
use e2e::redis::Redis;
use e2e::wait;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::{Hold, Ledger, Settled};
use policy::model::Unit;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::task::JoinSet;

/// The maximum of every bucket.
const MAX: u64 = 1000;

fn place(nodes: &[Redis]) -> String {
    format!("redis+cluster://127.0.0.1:{}", nodes[0].port())
}

/// Removes and returns the only node that stores anything.
fn owner(nodes: &mut Vec<Redis>) -> Redis {
    let owner = nodes.iter().position(|node| node.command(&["DBSIZE"]) != ":0").unwrap();
    let owner = nodes.remove(owner);
    assert!(nodes.iter().all(|node| node.command(&["DBSIZE"]) == ":0"));
    owner
}

#[tokio::test]
async fn a_cluster_whichever_of_its_nodes_is_named() {
    let nodes = Redis::cluster(3);
    for node in &nodes {
        is_a_place(&format!("redis+cluster://127.0.0.1:{}", node.port())).await;
        nodes.iter().for_each(|node| drop(node.command(&["FLUSHALL"])));
    }
    // The first node in the URL does not answer.
    is_a_place(&format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", free_port(), nodes[0].port())).await;
}

#[tokio::test]
async fn users_are_spread_over_the_nodes_and_a_limit_is_one_round_trip_to_one_of_them() {
    let nodes = Redis::cluster(3);
    let ledger = served(&place(&nodes));
    let pair = async |id: u32| {
        let (id, user) = (id.to_string(), id.to_string());
        let reserve = async || ledger.reserve(&id, vec![tokens(&user, 10)], Moment::now()).await;
        assert!(once_it_works(reserve).await.admitted);
        let settled = ledger.commit(&id, charge(&user, 5), Moment::now()).await.unwrap();
        assert_eq!(settled, Settled::Released);
    };
    // Every node has to receive the functions once.
    for id in 0..300 {
        pair(id).await;
    }
    let calls = || -> Vec<u64> {
        let calls = |node: &Redis| {
            let stats = node.command(&["INFO", "commandstats"]);
            let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_fcall:calls="));
            line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
        };
        nodes.iter().map(calls).collect()
    };
    let before = calls();
    for id in 300..600 {
        pair(id).await;
    }
    let made: Vec<u64> = calls().iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(made.iter().sum::<u64>(), 600, "{made:?}");
    assert!(made.iter().all(|calls| *calls > 100), "{made:?}");
    assert_eq!(books(&*ledger).await, vec![(5, 0); 600]);
}

#[tokio::test]
async fn a_node_of_a_cluster_that_is_named_as_if_it_were_alone() {
    let nodes = Redis::cluster(2);
    let is_elsewhere = |node: &&Redis| node.command(&["EXISTS", "{weir}:buckets"]).contains("MOVED");
    let wrong = nodes.iter().find(is_elsewhere).unwrap();
    let error = served(&wrong.url(0)).size().await.unwrap_err().to_string();
    assert!(error.ends_with("; use redis+cluster://HOST:PORT"), "{error}");
}

#[tokio::test]
async fn a_cluster_whose_node_is_replaced_by_its_replica() {
    let mut others = Redis::cluster(3);
    let ledger = served(&place(&others));
    let reserve = async || ledger.reserve("1", vec![tokens("alice", 100)], Moment::now()).await;
    assert!(once_it_works(reserve).await.admitted);
    let mut owner = owner(&mut others);
    let replica = Redis::cluster_replica_of(&owner);
    wait::until("the reservation at the replica", || {
        (replica.command(&["INFO", "keyspace"]).contains("keys=6")).then_some(())
    });
    owner.kill();
    let settled = once_it_works(async || ledger.commit("1", charge("alice", 30), Moment::now()).await).await;
    assert_eq!(settled, Settled::Released);
    assert_eq!(books(&*ledger).await, [(30, 0)]);
}

#[tokio::test]
async fn while_a_node_is_down_the_shards_of_the_others_work() {
    let mut others = Redis::cluster(3);
    for node in &others {
        node.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let ledger = served(&place(&others));
    let reserve = async || ledger.reserve("1", vec![tokens("alice", 100)], Moment::now()).await;
    assert!(once_it_works(reserve).await.admitted);
    let mut owner = owner(&mut others);
    owner.kill();
    // Find users on the other nodes.
    let mut working = 0;
    for user in 0..60 {
        let (id, user) = (format!("of-{user}"), user.to_string());
        if ledger.reserve(&id, vec![tokens(&user, 10)], Moment::now()).await.is_ok() {
            ledger.commit(&id, charge(&user, 10), Moment::now()).await.unwrap();
            working += 1;
        }
    }
    assert!((20..60).contains(&working), "{working} of 60");
    let told = ledger.ready().await.unwrap_err().to_string();
    assert!(
        told.starts_with("the counter storage does not answer: shards ") && told.contains(" of 24: "),
        "{told}"
    );
    ledger.commit("1", charge("alice", 30), Moment::now()).await.unwrap_err();
    owner.restart();
    // The node has lost its data, as it has no disk.
    let settled = once_it_works(async || ledger.commit("1", charge("alice", 30), Moment::now()).await).await;
    assert_eq!(settled, Settled::Charged);
    once_it_works(async || ledger.ready().await).await;
}

/// An exchange of a user and the limit for all. Returns what was charged to both.
async fn exchange(ledger: Arc<dyn Ledger>, id: String, user: String) -> u64 {
    let holds = vec![tokens(&user, 30), Hold { max: 20 * MAX, ..tokens("all", 30) }];
    let amount = fastrand::u64(1..=30);
    let charges = |amount| [charge(&user, amount), charge("all", amount)].concat();
    let amount = match ledger.reserve(&id, holds, Moment::now()).await {
        Ok(outcome) if outcome.admitted => amount,
        Ok(_) => return 0,
        // The filter releases what the call may hold.
        Err(_) => 0,
    };
    while ledger.commit(&id, charges(amount), Moment::now()).await.is_err() {
        tokio::task::yield_now().await;
    }
    amount
}

#[tokio::test(flavor = "multi_thread")]
async fn while_slots_move_between_nodes_no_limit_is_exceeded_and_every_charge_is_made_once() {
    let nodes = Redis::cluster(3);
    let adapters = [served(&place(&nodes)), served(&place(&nodes[1..]))];
    once_it_works(async || adapters[0].ready().await).await;
    let (is_over, played) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut users = JoinSet::new();
    for number in 0..40 {
        let (adapters, is_over, played) = (adapters.clone(), Arc::clone(&is_over), Arc::clone(&played));
        users.spawn(async move {
            let (user, mut sum) = (number.to_string(), 0);
            for step in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let ledger = Arc::clone(&adapters[step % 2]);
                sum += exchange(ledger, format!("{number}-{step}"), user.clone()).await;
                played.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
            (key(&user, Unit::Tokens), sum)
        });
    }
    // All shards of the first node move to the third one, and back.
    let moving = tokio::task::spawn_blocking(move || {
        let tags = limitador_adapter::ledger::redis::shards::SHARD_TAGS;
        for (source, target) in [(0, 2), (2, 0)] {
            for tag in &tags[..8] {
                let before = played.load(Ordering::Relaxed);
                wait::until("requests between two moves", || {
                    (played.load(Ordering::Relaxed) > before + 40).then_some(())
                });
                let slot = nodes[0].command(&["CLUSTER", "KEYSLOT", tag]).replace(':', "");
                nodes[source].move_slot(slot.parse().unwrap(), &nodes[target], &nodes);
            }
        }
        nodes
    });
    let _nodes = moving.await.unwrap();
    is_over.store(true, Ordering::Relaxed);
    let mut charged: BTreeMap<_, _> = users.join_all().await.into_iter().collect();
    charged.retain(|_, amount| *amount > 0);
    charged.insert(key("all", Unit::Tokens), charged.values().sum());
    for ledger in &adapters {
        once_it_works(async || ledger.sweep(Moment::now()).await).await;
    }
    let readings = once_it_works(async || adapters[1].readings(Moment::now()).await).await;
    assert!(readings.iter().all(|it| it.held == 0), "{readings:?}");
    assert!(
        readings.iter().all(|it| it.used <= if it.key == key("all", Unit::Tokens) { 20 * MAX } else { MAX })
    );
    let used: BTreeMap<_, _> = readings.into_iter().map(|it| (it.key, it.used)).collect();
    assert_eq!(used, charged);
    assert!(charged.len() > 30, "{}", charged.len());
}
