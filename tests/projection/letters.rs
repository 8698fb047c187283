//! Events that a store refuses: parked with what follows of their stream, told as dead letters, and
//! brought back in order. The poison is what operators meet: a constraint in the read model.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use millrace::read_model::store::parked::{Filter, Letter};
use millrace::runtime::projection::Projection;

use super::at_the_end;
use crate::bank::{Bank, Written};
use crate::expected::{assert_clickhouse, assert_postgres};
use crate::stack::{PARTITIONS, Stack, until};

const POSTGRES: &str = "postgres.banking";
const CLICKHOUSE: &str = "clickhouse.banking";

fn filter(projection: &str) -> Filter {
    Filter { projection: Some(projection.to_owned()), limit: 1_000_000, ..Filter::default() }
}

/// What a projection has parked, by place in the log.
pub(crate) async fn parked(stack: &Stack, projection: &str) -> Vec<Letter> {
    let filter = filter(projection);
    if projection == POSTGRES {
        stack.database().list_parked(&filter).await.unwrap()
    } else {
        stack.events().list_parked(&filter).await.unwrap()
    }
}

/// Asks for everything that is parked, and waits until it was tried.
async fn redrive(stack: &Stack, projection: &str) -> u64 {
    let filter = filter(projection);
    let asked = if projection == POSTGRES {
        stack.database().want_parked(&filter).await.unwrap()
    } else {
        stack.events().want_parked(&filter).await.unwrap()
    };
    until("what is parked was tried again", || async {
        let (_, wanted) = if projection == POSTGRES {
            stack.database().left_parked(&filter).await.unwrap()
        } else {
            stack.events().left_parked(&filter).await.unwrap()
        };
        wanted == 0
    })
    .await;
    asked
}

/// Makes the read model refuse the rows of some accounts from now on.
async fn poison(stack: &Stack, projection: &str, is_bad: &str) {
    let is_bad =
        is_bad.replace("{id}", if projection == POSTGRES { "account_id" } else { "aggregate_id" });
    let constraint = if projection == POSTGRES {
        format!("ADD CONSTRAINT poison CHECK (NOT ({is_bad})) NOT VALID")
    } else {
        format!("ADD CONSTRAINT poison CHECK NOT ({is_bad})")
    };
    alter(stack, projection, &constraint).await;
}

async fn mend(stack: &Stack, projection: &str) {
    alter(stack, projection, "DROP CONSTRAINT poison").await;
}

async fn alter(stack: &Stack, projection: &str, what: &str) {
    if projection == POSTGRES {
        let schema = stack.config.namespace.underscored("banking_g1");
        let alter = format!("ALTER TABLE {schema}.account_summary {what}");
        stack.database().client().await.unwrap().batch_execute(&alter).await.unwrap();
    } else {
        let database = stack.events();
        let alter = format!("ALTER TABLE {}.banking_event_g1 {what}", database.name());
        database.client().query_raw(&alter).execute().await.unwrap();
    }
}

async fn start(stack: &Stack, projection: &str) -> Projection {
    if projection == POSTGRES {
        stack.project_to_postgres().await
    } else {
        stack.project_to_clickhouse().await
    }
}

async fn stop(projection: Projection) {
    tokio::task::spawn_blocking(move || drop(projection)).await.unwrap();
}

async fn assert_rows(stack: &Stack, projection: &str, log: &[Written]) {
    if projection == POSTGRES {
        assert_postgres(stack, log).await;
    } else {
        assert_clickhouse(stack, log).await;
    }
}

fn without(log: &[Written], account_id: &str) -> Vec<Written> {
    log.iter().filter(|written| written.account_id != account_id).cloned().collect()
}

fn of(log: &[Written], account_id: &str) -> Vec<u64> {
    let own = log.iter().filter(|written| written.account_id == account_id);
    own.map(|written| written.sequence).collect()
}

/// The dead letters' sources, and what each says: partition, offset, error code.
fn letters(stack: &Stack, projection: &str) -> Vec<(i32, i64, String)> {
    let mut found = Vec::new();
    for partition in 0..PARTITIONS {
        for letter in stack.read_topic(&stack.letters_topic(), partition, 0) {
            let text = |name: &str| letter.headers.text(name).unwrap().to_owned();
            assert_eq!(text("component"), projection);
            assert_eq!(text("source_topic"), stack.topic);
            assert_eq!(text("source_partition"), partition.to_string());
            let offset: i64 = text("source_offset").parse().unwrap();
            let source = stack.read(partition, offset).swap_remove(0);
            assert_eq!((source.offset, &source.key), (offset, &letter.key));
            assert_eq!(source.value, letter.value, "the bytes are untouched");
            assert_eq!(source.headers.text("ce_id"), letter.headers.text("ce_id"));
            found.push((partition, offset, text("error_code")));
        }
    }
    found
}

async fn a_refused_stream(name: &str, projection: &str) {
    let stack = Stack::new(name).await;
    let mut bank = Bank::new(&stack, 21);
    bank.work(300, 12);
    let running = start(&stack, projection).await;
    at_the_end(&stack, &running).await;
    assert_rows(&stack, projection, &bank.log).await;
    let before = bank.log.len();

    poison(&stack, projection, "{id} = 'acc-3'").await;
    bank.work(200, 12);
    at_the_end(&stack, &running).await;
    // The others are as they should be, and the bad one as it was.
    let healthy = |log: &[Written]| -> Vec<Written> {
        let late =
            |(index, written): &(usize, &Written)| *index < before || written.account_id != "acc-3";
        log.iter().enumerate().filter(late).map(|(_, written)| written.clone()).collect()
    };
    assert_rows(&stack, projection, &healthy(&bank.log)).await;

    // A new owner knows what is parked; more comes behind it.
    stop(running).await;
    let running = start(&stack, projection).await;
    bank.work(200, 12);
    at_the_end(&stack, &running).await;
    assert_rows(&stack, projection, &healthy(&bank.log)).await;
    let all = parked(&stack, projection).await;
    let sequences: Vec<u64> = all.iter().map(|letter| letter.sequence).collect();
    assert!(sequences.len() > 5 && sequences == of(&bank.log[before..], "acc-3"), "{sequences:?}");
    assert!(all.iter().all(|letter| letter.stream == "acc-3"));
    assert_eq!(
        (all[0].error_code.as_str(), all[1].error_code.as_str()),
        ("StoreRefused", "BehindParked")
    );
    assert!(all[0].attempts > 0 && all[0].error.contains("poison"), "{}", all[0].error);
    let told: BTreeSet<_> = letters(&stack, projection).into_iter().map(|(_, at, _)| at).collect();
    let offsets: BTreeSet<_> = all.iter().map(|letter| letter.record.offset).collect();
    assert_eq!(told, offsets, "a dead letter for each");

    // Too early: nothing is lost, and why is told.
    redrive(&stack, projection).await;
    let again = parked(&stack, projection).await;
    assert_eq!(again.len(), all.len());
    assert!(again[0].attempts > all[0].attempts);

    mend(&stack, projection).await;
    let asked = redrive(&stack, projection).await;
    assert_eq!(usize::try_from(asked).unwrap(), all.len());
    assert!(parked(&stack, projection).await.is_empty());
    bank.work(100, 12);
    at_the_end(&stack, &running).await;
    assert_rows(&stack, projection, &bank.log).await;
    stop(running).await;

    // The same as a clean rebuild.
    stack.reset_offsets(projection.split('.').next().unwrap(), &["--to-earliest"]);
    let running = start(&stack, projection).await;
    at_the_end(&stack, &running).await;
    assert_rows(&stack, projection, &bank.log).await;
    stop(running).await;
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_postgres_refuses_is_parked_and_comes_back_in_order() {
    a_refused_stream("refusedp", POSTGRES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clickhouse_refuses_is_parked_and_comes_back_in_order() {
    a_refused_stream("refusedc", CLICKHOUSE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_tries_again_what_was_parked() {
    let stack = Stack::new("parkreplay").await;
    let mut bank = Bank::new(&stack, 22);
    bank.work(100, 8);
    for projection in [POSTGRES, CLICKHOUSE] {
        let running = start(&stack, projection).await;
        at_the_end(&stack, &running).await;
        stop(running).await;
        poison(&stack, projection, "{id} = 'acc-3' OR {id} = 'acc-5'").await;
    }
    bank.work(200, 8);
    for projection in [POSTGRES, CLICKHOUSE] {
        let running = start(&stack, projection).await;
        at_the_end(&stack, &running).await;
        stop(running).await;
        let streams: BTreeSet<String> =
            parked(&stack, projection).await.into_iter().map(|letter| letter.stream).collect();
        assert_eq!(streams.len(), 2, "{projection}: {streams:?}");
        let store = projection.split('.').next().unwrap();

        // Still refused, from their first event on: parked again, once each.
        stack.reset_offsets(store, &["--to-earliest"]);
        let running = start(&stack, projection).await;
        at_the_end(&stack, &running).await;
        let healthy = without(&without(&bank.log, "acc-3"), "acc-5");
        let all = parked(&stack, projection).await;
        if projection == POSTGRES {
            assert_eq!(all.len(), bank.log.len() - healthy.len());
            assert_rows(&stack, projection, &healthy).await;
        }
        stop(running).await;

        // From the middle: a stream that is parked stays so.
        mend(&stack, projection).await;
        stack.reset_offsets(store, &["--shift-by", "-20"]);
        let running = start(&stack, projection).await;
        at_the_end(&stack, &running).await;
        assert_eq!(parked(&stack, projection).await.len(), all.len());
        stop(running).await;

        // From the start: nothing is parked any more.
        stack.reset_offsets(store, &["--to-earliest"]);
        let running = start(&stack, projection).await;
        at_the_end(&stack, &running).await;
        assert!(parked(&stack, projection).await.is_empty());
        assert_rows(&stack, projection, &bank.log).await;
        stop(running).await;
    }
    stack.clean().await;
}

/// How long a projection takes for what has been written since it was stopped, from its first
/// batch to its last. What measures it must not read along: the log grows from one time to the
/// next.
async fn timed(stack: &Stack) -> Duration {
    let end = |partition| stack.read(partition, 0).last().map_or(0, |record| record.offset + 1);
    let ends: Vec<i64> = (0..PARTITIONS).map(end).collect();
    let running = stack.project_to_postgres().await;
    let places = || {
        let mut partitions = running.status().partitions;
        partitions.retain(|found| found.topic == stack.topic);
        partitions
    };
    until("the first batch", || async { places().iter().any(|found| found.events > 0) }).await;
    let started = Instant::now();
    until("the last batch", || async {
        let places: Vec<i64> = places().iter().map(|found| found.place.next_offset).collect();
        places == ends
    })
    .await;
    let elapsed = started.elapsed();
    stop(running).await;
    elapsed
}

/// One stream in a hundred is refused. It takes a while to find them; once they are parked the
/// others hardly notice. What is printed is measured; the bounds are wide, for a busy machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poisoned_stream_in_a_hundred_slows_the_others_little() {
    const ACCOUNTS: usize = 2_000;
    const DEPOSITS: usize = 15;
    let stack = Stack::new("poison").await;
    let mut bank = Bank::new(&stack, 23);
    bank.open_and_deposit(ACCOUNTS, 1);
    timed(&stack).await;
    bank.deposit(ACCOUNTS, DEPOSITS);
    let clean = timed(&stack).await;

    poison(&stack, POSTGRES, "{id} LIKE 'many-%00'").await;
    let bad = ACCOUNTS / 100 - 1;
    bank.deposit(ACCOUNTS, DEPOSITS);
    let finding = timed(&stack).await;
    assert_eq!(parked(&stack, POSTGRES).await.len(), bad * DEPOSITS);
    bank.deposit(ACCOUNTS, DEPOSITS);
    let known = timed(&stack).await;
    let all = parked(&stack, POSTGRES).await;
    assert_eq!(all.len(), 2 * bad * DEPOSITS);
    let streams: BTreeSet<&str> = all.iter().map(|letter| letter.stream.as_str()).collect();
    assert_eq!(streams.len(), bad);
    println!(
        "{} events: clean {clean:?}; while 1 % poison is found {finding:?}; once it is parked \
         {known:?}",
        ACCOUNTS * DEPOSITS
    );
    assert!(finding < clean * 5 + Duration::from_secs(10), "{finding:?} against {clean:?}");
    assert!(known < clean * 2 + Duration::from_secs(5), "{known:?} against {clean:?}");
    stack.clean().await;
}
