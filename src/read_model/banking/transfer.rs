//! One row a transfer: the saga's events -> where it is, why, and until when.
//!
//! | event | state | reason |
//! |---|---|---|
//! | `TransferStarted`, `TransferReceived` | `PENDING` | none |
//! | `ReversalStarted` | `PENDING` | the refusal's code |
//! | `StepFailed`, `StepRepeated` | as it was | none, or the refusal's code |
//! | `TransferParked` | as it was | `parked at <step>: <why>` |
//! | `TransferCompleted` | `COMPLETED` | none |
//! | `TransferReversed` | `REVERSED` | the refusal's code |

use chrono::{DateTime, Utc};
use hashbrown::HashMap;
use rust_decimal::Decimal;
use tokio_postgres::{Row, Statement, Transaction};

use super::numeric;
use crate::domain::banking::transfer::Event;
use crate::kernel::projection::{Head, Projection};
use crate::kernel::time::Timestamp;
use crate::read_model::store::Source;
use crate::read_model::store::fold::Versions;
use crate::read_model::store::generation::Generation;

/// The table of one generation.
pub const TABLE: &str = include_str!("transfer.sql");

/// The view that users read.
pub const VIEW: &str = include_str!("transfer.view.sql");

/// What a batch changes about transfers.
#[derive(Debug, Default)]
pub struct Transfers {
    transfers: HashMap<String, Change>,
}

/// What a batch changes about one transfer; what is `None` stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Change {
    first_version: u64,
    version: u64,
    state: Option<&'static str>,
    from_account_id: Option<String>,
    to_account_id: Option<String>,
    amount: Option<Decimal>,
    fee: Option<Decimal>,
    currency: Option<String>,
    refusal: Option<String>,
    is_parked: Option<bool>,
    parked_because: Option<String>,
    deadline: Option<Timestamp>,
    created_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
}

impl Change {
    fn take(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::TransferStarted(event) => {
                self.from_account_id = Some(event.from_account_id.clone());
                self.to_account_id = Some(event.to_account_id.clone());
                self.amount = Some(numeric(event.amount, event.currency));
                self.fee = Some(numeric(event.fee, event.currency));
                self.currency = Some(event.currency.as_str().to_owned());
                self.created_at = Some(at);
                self.waits_until(event.deadline);
            }
            Event::TransferReceived(event) => self.waits_until(event.deadline),
            Event::ReversalStarted(event) => {
                self.refusal = Some(event.reason.clone());
                self.waits_until(event.deadline);
            }
            Event::StepRepeated(event) => self.waits_until(event.deadline),
            Event::StepFailed(event) => self.deadline = Some(event.retry_at),
            Event::TransferParked(event) => {
                let step = event.step.as_str();
                self.is_parked = Some(true);
                self.parked_because = Some(format!("parked at {step}: {}", event.reason));
            }
            Event::TransferCompleted(_) => self.end("COMPLETED", at),
            Event::TransferReversed(event) => {
                self.refusal = Some(event.reason.clone());
                self.end("REVERSED", at);
            }
        }
    }

    fn waits_until(&mut self, deadline: Timestamp) {
        self.state = Some("PENDING");
        self.is_parked = Some(false);
        self.deadline = Some(deadline);
    }

    fn end(&mut self, state: &'static str, at: Timestamp) {
        self.state = Some(state);
        self.is_parked = Some(false);
        self.ended_at = Some(at);
    }
}

impl Projection for Transfers {
    type Event = Event;

    fn project(&mut self, head: &Head<'_>, event: Option<&Event>) {
        let change = self.transfers.entry_ref(head.stream).or_default();
        if change.version == 0 {
            change.first_version = head.sequence;
        }
        change.version = head.sequence;
        if let Some(event) = event {
            change.take(event, head.occurred_at);
        }
    }
}

/// The columns that are written, as one array each.
#[derive(Default)]
struct Columns<'a> {
    transfer_id: Vec<&'a str>,
    state: Vec<Option<&'static str>>,
    from_account_id: Vec<Option<&'a str>>,
    to_account_id: Vec<Option<&'a str>>,
    amount: Vec<Option<Decimal>>,
    fee: Vec<Option<Decimal>>,
    currency: Vec<Option<&'a str>>,
    refusal: Vec<Option<&'a str>>,
    is_parked: Vec<Option<bool>>,
    parked_because: Vec<Option<&'a str>>,
    deadline: Vec<Option<DateTime<Utc>>>,
    created_at: Vec<Option<DateTime<Utc>>>,
    ended_at: Vec<Option<DateTime<Utc>>>,
    first_version: Vec<i64>,
    version: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, transfer_id: &'a str, change: &'a Change) {
        let time = |moment: Option<Timestamp>| moment.map(Timestamp::to_chrono);
        self.transfer_id.push(transfer_id);
        self.state.push(change.state);
        self.from_account_id.push(change.from_account_id.as_deref());
        self.to_account_id.push(change.to_account_id.as_deref());
        self.amount.push(change.amount);
        self.fee.push(change.fee);
        self.currency.push(change.currency.as_deref());
        self.refusal.push(change.refusal.as_deref());
        self.is_parked.push(change.is_parked);
        self.parked_because.push(change.parked_because.as_deref());
        self.deadline.push(time(change.deadline));
        self.created_at.push(time(change.created_at));
        self.ended_at.push(time(change.ended_at));
        self.first_version.push(change.first_version.cast_signed());
        self.version.push(change.version.cast_signed());
    }
}

impl Transfers {
    /// Writes the changes; `false` if a transfer was not at the version that they follow on.
    pub(super) async fn write(
        &self,
        transaction: &Transaction<'_>,
        upsert: &Statement,
        source: &Source,
    ) -> Result<bool, tokio_postgres::Error> {
        // Sorted, so that two owners by mistake wait for each other instead of dead-locking.
        let mut sorted: Vec<(&String, &Change)> = self.transfers.iter().collect();
        sorted.sort_unstable_by_key(|(transfer_id, _)| *transfer_id);
        let mut columns = Columns::default();
        for (transfer_id, change) in &sorted {
            columns.push(transfer_id, change);
        }
        let row = transaction
            .query_one(
                upsert,
                &[
                    &source.partition,
                    &columns.transfer_id,
                    &columns.state,
                    &columns.from_account_id,
                    &columns.to_account_id,
                    &columns.amount,
                    &columns.fee,
                    &columns.currency,
                    &columns.refusal,
                    &columns.is_parked,
                    &columns.parked_because,
                    &columns.deadline,
                    &columns.created_at,
                    &columns.ended_at,
                    &columns.first_version,
                    &columns.version,
                ],
            )
            .await?;
        let written = usize::try_from(row.get::<_, i64>("written")).ok();
        // A row that began with another event than its first was made of nothing.
        Ok(written == Some(sorted.len()) && row.get::<_, i64>("unfounded") == 0)
    }
}

/// The statement that writes a batch's changes and says how many rows took them.
#[must_use]
pub fn upsert(generation: &Generation) -> String {
    generation.fill(
        "WITH written AS (
            INSERT INTO {schema}.transfer AS t (
                kafka_partition, transfer_id, state, from_account_id, to_account_id, amount, fee,
                currency, refusal, is_parked, parked_because, deadline, created_at, ended_at,
                first_version, version)
            SELECT $1::integer, c.* FROM UNNEST(
                $2::text[], $3::text[], $4::text[], $5::text[], $6::numeric[], $7::numeric[],
                $8::text[], $9::text[], $10::boolean[], $11::text[], $12::timestamptz[],
                $13::timestamptz[], $14::timestamptz[], $15::bigint[], $16::bigint[]) AS c
            ON CONFLICT (transfer_id) DO UPDATE SET
                state = coalesce(excluded.state, t.state),
                from_account_id = coalesce(t.from_account_id, excluded.from_account_id),
                to_account_id = coalesce(t.to_account_id, excluded.to_account_id),
                amount = coalesce(t.amount, excluded.amount),
                fee = coalesce(t.fee, excluded.fee),
                currency = coalesce(t.currency, excluded.currency),
                refusal = coalesce(excluded.refusal, t.refusal),
                is_parked = coalesce(excluded.is_parked, t.is_parked),
                parked_because = coalesce(excluded.parked_because, t.parked_because),
                deadline = coalesce(excluded.deadline, t.deadline),
                created_at = coalesce(t.created_at, excluded.created_at),
                ended_at = coalesce(excluded.ended_at, t.ended_at),
                version = excluded.version
            WHERE t.version = excluded.first_version - 1
            RETURNING t.first_version
        )
        SELECT count(*) AS written, count(*) FILTER (WHERE first_version <> 1) AS unfounded
        FROM written",
    )
}

/// Reads transfers' versions and locks their rows.
pub(super) async fn versions(
    transaction: &Transaction<'_>,
    generation: &Generation,
    streams: &[&str],
) -> Result<Versions, tokio_postgres::Error> {
    let select = generation.fill(
        "SELECT transfer_id, version FROM {schema}.transfer
         WHERE transfer_id = ANY($1) ORDER BY transfer_id FOR UPDATE",
    );
    let rows = transaction.query(&select, &[&streams]).await?;
    let version =
        |row: &Row| (row.get("transfer_id"), row.get::<_, i64>("version").cast_unsigned());
    Ok(rows.iter().map(version).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::banking::transfer::{
        ReversalStarted, Step, StepFailed, StepRepeated, TransferCompleted, TransferParked,
        TransferReversed, TransferStarted,
    };
    use crate::domain::money::{Amount, Currency};

    const CURRENCY: Currency = Currency::USD;

    fn user_id() -> String {
        "ada".to_owned()
    }

    fn started() -> Event {
        Event::TransferStarted(TransferStarted {
            user_id: user_id(),
            currency: CURRENCY,
            from_account_id: "a".to_owned(),
            to_account_id: "b".to_owned(),
            amount: Amount::whole(300),
            fee: Amount::whole(2),
            reference: None,
            valid_until: Timestamp(900),
            deadline: Timestamp(11),
        })
    }

    fn parked(why: &str) -> Event {
        let reason = why.to_owned();
        Event::TransferParked(TransferParked { user_id: user_id(), step: Step::Receive, reason })
    }

    /// What comes of events, each a moment after the one before it.
    fn change(events: &[Event]) -> Change {
        let mut change = Change::default();
        for (at, event) in (1..).zip(events) {
            change.take(event, Timestamp(at));
        }
        change
    }

    #[test]
    fn a_transfer_that_arrives_is_completed() {
        let amount = Amount::whole(300);
        let completed = TransferCompleted { user_id: user_id(), currency: CURRENCY, amount };
        let change = change(&[started(), Event::TransferCompleted(completed)]);
        assert_eq!(change.state, Some("COMPLETED"));
        assert_eq!((change.created_at, change.ended_at), (Some(Timestamp(1)), Some(Timestamp(2))));
        assert_eq!((change.amount, change.fee), (Some(Decimal::from(300)), Some(Decimal::from(2))));
        assert_eq!((change.refusal, change.is_parked), (None, Some(false)));
    }

    #[test]
    fn a_refused_one_is_reversed_with_the_refusals_code() {
        let (amount, reason) = (Amount::whole(300), "AccountNotFound".to_owned());
        let begun = Event::ReversalStarted(ReversalStarted {
            user_id: user_id(),
            currency: CURRENCY,
            from_account_id: "a".to_owned(),
            amount,
            reason: reason.clone(),
            deadline: Timestamp(22),
        });
        let under_way = change(&[started(), begun.clone()]);
        assert_eq!((under_way.state, under_way.deadline), (Some("PENDING"), Some(Timestamp(22))));
        assert_eq!(under_way.refusal.as_deref(), Some("AccountNotFound"));
        let ended = Event::TransferReversed(TransferReversed {
            user_id: user_id(),
            currency: CURRENCY,
            amount,
            fee: Amount::whole(2),
            reason,
        });
        let ended = change(&[started(), begun, ended]);
        assert_eq!((ended.state, ended.ended_at), (Some("REVERSED"), Some(Timestamp(3))));
        assert_eq!(ended.refusal.as_deref(), Some("AccountNotFound"));
    }

    #[test]
    fn a_failure_moves_the_deadline_and_nothing_else() {
        let failed = Event::StepFailed(StepFailed {
            user_id: user_id(),
            step: Step::Receive,
            attempt: 1,
            reason: "InternalError".to_owned(),
            retry_at: Timestamp(33),
        });
        let before = change(&[started()]);
        let after = change(&[started(), failed]);
        assert_eq!(after, Change { deadline: Some(Timestamp(33)), ..before });
    }

    #[test]
    fn a_parked_one_says_where_and_why_until_it_goes_on() {
        let still = change(&[started(), parked("no answer")]);
        assert_eq!((still.state, still.is_parked), (Some("PENDING"), Some(true)));
        assert_eq!(still.parked_because.as_deref(), Some("parked at RECEIVE: no answer"));
        let again = Event::StepRepeated(StepRepeated {
            user_id: user_id(),
            step: Step::Receive,
            attempt: 1,
            deadline: Timestamp(44),
            currency: CURRENCY,
            from_account_id: "a".to_owned(),
            to_account_id: "b".to_owned(),
            amount: Amount::whole(300),
            reference: None,
            valid_until: Timestamp(900),
            reason: None,
        });
        let again = change(&[started(), parked("no answer"), again]);
        assert_eq!((again.is_parked, again.deadline), (Some(false), Some(Timestamp(44))));
    }
}
