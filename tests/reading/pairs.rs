//! 10,000 times: a command, its result, a read with the result's token. While partitions change
//! hands, no answer is older than the command.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::desk::Desk;
use crate::harness::commands::deposit;
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::harness::{await_some, http};

/// Clients that read Postgres, and how often each.
const ROW_CLIENTS: usize = 38;
const ROW_PAIRS: usize = 250;
/// Clients that read ClickHouse, whose blocks take some hundred milliseconds each.
const BLOCK_CLIENTS: usize = 20;
const BLOCK_PAIRS: usize = 25;
/// Reads without a token, which show that there is something to wait for.
const CARELESS_PAIRS: usize = 30;
const SHARED_WITHIN: Duration = Duration::from_secs(30);

/// How a client reads what it has done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Postgres,
    ClickHouse,
}

/// Who answers at the moment.
type Doors = RwLock<Vec<String>>;

#[derive(Default)]
struct Tally {
    answers: AtomicUsize,
    stale: AtomicUsize,
    again: AtomicUsize,
    took_ms: Mutex<Vec<usize>>,
    wrong: Mutex<Vec<String>>,
}

impl Tally {
    fn count(&self, is_fresh: bool, took: Duration) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.stale.fetch_add(usize::from(!is_fresh), Ordering::Relaxed);
        let took = usize::try_from(took.as_millis()).unwrap();
        self.took_ms.lock().unwrap().push(took);
    }

    fn percentile(&self, percent: usize) -> usize {
        let mut all = self.took_ms.lock().unwrap().clone();
        all.sort_unstable();
        all[(all.len() * percent / 100).min(all.len() - 1)]
    }
}

/// Asks whoever is there; one that goes away in mid-answer is asked again elsewhere.
fn ask(doors: &Doors, turn: usize, path: &str, headers: &[(&str, &str)], tally: &Tally) -> Value {
    loop {
        let door = {
            let doors = doors.read().unwrap();
            doors[turn % doors.len()].clone()
        };
        match http::request("GET", &format!("{door}{path}"), headers, "") {
            Ok((200, body)) => return serde_json::from_str(&body).unwrap(),
            Ok((status, body)) => {
                tally.wrong.lock().unwrap().push(format!("{path}: {status} {body}"));
                return Value::Null;
            }
            Err(_) => {
                tally.again.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// How many events of the account an answer knows, and what they add up to.
fn known(store: Store, account: &str, answer: &Value) -> (u64, String) {
    match store {
        Store::Postgres => {
            let balance = answer["current_balance"].as_str().unwrap_or_default();
            (answer["version"].as_u64().unwrap_or_default(), balance.to_owned())
        }
        Store::ClickHouse => {
            let rows = answer["data"].as_array().cloned().unwrap_or_default();
            let own = rows.iter().find(|row| row["account_id"] == account);
            let events = own.and_then(|row| row["events"].as_u64()).unwrap_or_default();
            let moved = own.and_then(|row| row["moved"].as_str()).unwrap_or_default();
            (events, if moved.is_empty() { String::new() } else { format!("{moved}.00") })
        }
    }
}

/// One client's pairs.
fn client(desk: &Desk, doors: &Doors, (store, number): (Store, usize), pairs: usize, t: &Tally) {
    let account = account(store, number);
    let path = match store {
        Store::Postgres => format!("/v1/banking/accounts/{account}"),
        Store::ClickHouse => "/v1/banking/panels/largest-movers".to_owned(),
    };
    for pair in 1..=pairs {
        let told = desk.accepted(&account, &deposit("1"));
        assert_eq!(told.version, pair as u64 + 1, "nobody else has this account");
        let began = Instant::now();
        // Half of them by the parameter, half by the header.
        let answer = if pair % 2 == 0 {
            let path = format!("{path}?consistency_token={}", told.token);
            ask(doors, number + pair, &path, &[("Prefer", "wait=60")], t)
        } else {
            let headers = [("Consistency-Token", told.token.as_str()), ("Prefer", "wait=60")];
            ask(doors, number + pair, &path, &headers, t)
        };
        let expected = (told.version, format!("{}.00", 100 + pair));
        let found = known(store, &account, &answer);
        t.count(found == expected, began.elapsed());
        if found != expected {
            t.wrong.lock().unwrap().push(format!("{account}: {found:?}, not {expected:?}"));
        }
    }
}

fn account(store: Store, number: usize) -> String {
    match store {
        Store::Postgres => format!("row-{number}"),
        Store::ClickHouse => format!("block-{number}"),
    }
}

/// How many of the handler's partitions a process has.
fn partitions_of(serve: &Serve) -> usize {
    let metrics = serve.try_get("/metrics").unwrap_or_default();
    let is_own = |line: &&str| {
        line.starts_with("millrace_handler_running")
            && line.contains(".account.commands\"")
            && line.ends_with(" 1")
    };
    metrics.lines().filter(is_own).count()
}

#[test]
fn ten_thousand_reads_see_their_own_command_while_partitions_change_hands() {
    const PAIRS: usize = ROW_CLIENTS * ROW_PAIRS + BLOCK_CLIENTS * BLOCK_PAIRS;
    const { assert!(PAIRS == 10_000) };
    let namespace = Namespace::new();
    let stays = Serve::ready(&namespace, "");
    let doors = RwLock::new(vec![stays.url()]);
    let desk = Desk::open(&namespace);
    let rows = (0..ROW_CLIENTS).map(|number| (Store::Postgres, number));
    let blocks = (0..BLOCK_CLIENTS).map(|number| (Store::ClickHouse, number));
    let clients: Vec<_> = rows.chain(blocks).collect();
    let accounts: Vec<String> =
        clients.iter().map(|(store, number)| account(*store, *number)).collect();
    desk.open_accounts(&accounts);

    let (rows, blocks) = (Tally::default(), Tally::default());
    let began = Instant::now();
    let moved = std::thread::scope(|scope| {
        for (store, number) in clients {
            let (desk, doors, rows, blocks) = (&desk, &doors, &rows, &blocks);
            scope.spawn(move || match store {
                Store::Postgres => client(desk, doors, (store, number), ROW_PAIRS, rows),
                Store::ClickHouse => client(desk, doors, (store, number), BLOCK_PAIRS, blocks),
            });
        }
        let reach = |share: usize| {
            await_some("reads", Duration::from_secs(300), || {
                let done = [&rows, &blocks].map(|tally| tally.answers.load(Ordering::Relaxed));
                let done: usize = done.iter().sum();
                if done * 100 >= PAIRS * share { Ok(done) } else { Err(format!("{done}")) }
            })
        };
        reach(15);
        let mut comes = Serve::start(&namespace, "");
        comes.wait_ready();
        let own = await_some("a share of the partitions", SHARED_WITHIN, || {
            match (partitions_of(&comes), partitions_of(&stays)) {
                (0, all) => Err(format!("the other has {all}")),
                (own, _) => Ok(own),
            }
        });
        doors.write().unwrap().push(comes.url());
        let joined = reach(40);
        doors.write().unwrap().pop();
        comes.terminate();
        (own, joined)
    });
    let all = began.elapsed();
    for (name, tally) in [("Postgres", &rows), ("ClickHouse", &blocks)] {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        println!(
            "  {name}: {} command-then-read pairs, {} stale, {} asked again elsewhere; a read \
             took {} ms (p50), {} ms (p99), {} ms at most",
            read(&tally.answers),
            read(&tally.stale),
            read(&tally.again),
            tally.percentile(50),
            tally.percentile(99),
            tally.percentile(100)
        );
    }
    println!("  {} partitions moved and came back; {:.1} s in all", moved.0, all.as_secs_f64());
    for tally in [&rows, &blocks] {
        let wrong = tally.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{} wrong, such as {:?}", wrong.len(), wrong.first());
    }
    assert!(moved.1 < PAIRS, "partitions changed hands while clients read");
    assert!(careless(&desk, &doors) > 0, "without a token some answers are older");
    stays.terminate();
}

/// How many reads without a token have not seen their command.
fn careless(desk: &Desk, doors: &Doors) -> usize {
    let account = account(Store::ClickHouse, 0);
    let stale = (1..=CARELESS_PAIRS).filter(|_| {
        let told = desk.accepted(&account, &deposit("1"));
        let path = "/v1/banking/panels/largest-movers";
        let answer = ask(doors, 0, path, &[], &Tally::default());
        known(Store::ClickHouse, &account, &answer).0 < told.version
    });
    let stale = stale.count();
    println!("  without a token {stale} of {CARELESS_PAIRS} answers of ClickHouse were stale");
    stale
}
