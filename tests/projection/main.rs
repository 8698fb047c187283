//! Projections on the real services: rows equal a fold of the log, whatever happens in between.

mod bank;
mod expected;
mod stack;

use bank::{Bank, Written};
use expected::{assert_clickhouse, assert_postgres};
use millrace::engine::projector::State;
use millrace::runtime::projection::Projection;
use stack::{Stack, until};

/// Waits until a projection has applied the last event of every partition.
async fn caught_up(stack: &Stack, projection: &Projection, log: &[Written]) {
    let total = log.len();
    until("the projection has caught up", || async {
        let status = projection.status();
        let stopped = status.partitions.iter().find(|found| found.state == State::Stopped);
        assert!(stopped.is_none(), "{stopped:?}");
        eprintln!("{status:?}");
        if status.name.starts_with("postgres") {
            postgres_events(stack).await == total
        } else {
            clickhouse_events(stack).await == total
        }
    })
    .await;
}

/// How many events the accounts' versions add up to.
async fn postgres_events(stack: &Stack) -> usize {
    let client = stack.database().client().await.unwrap();
    let domain = stack.config.namespace.underscored("banking");
    let select = format!("SELECT coalesce(sum(version), 0)::bigint FROM {domain}.account_summary");
    let sum: i64 = client.query_one(&select, &[]).await.unwrap().get(0);
    usize::try_from(sum).unwrap()
}

async fn clickhouse_events(stack: &Stack) -> usize {
    let database = stack.events();
    let select = format!("SELECT count() FROM {}.event", database.name());
    let count: u64 = database.client().query(&select).fetch_one().await.unwrap();
    usize::try_from(count).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_equal_a_fold_of_the_log() {
    let stack = Stack::new("fold").await;
    let mut bank = Bank::new(&stack, 1);
    bank.work(400, 20);
    let postgres = stack.project_to_postgres().await;
    let clickhouse = stack.project_to_clickhouse().await;
    bank.work_in_vain(100, 30);
    bank.work(200, 40);
    bank.repeat(50);
    bank.work(200, 40);
    caught_up(&stack, &postgres, &bank.log).await;
    assert_postgres(&stack, &bank.log).await;
    caught_up(&stack, &clickhouse, &bank.log).await;
    assert_clickhouse(&stack, &bank.log).await;
    drop((postgres, clickhouse));
    stack.clean().await;
}
