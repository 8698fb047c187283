//! A stream and a moment -> its state then: the fold of its events up to there.
//!
//! A time is compared with the events' own (`ce_time`), which never goes back within a stream.

use serde_json::{Value, json};

use super::aggregate::{Folding, unfolded};
use super::streams::{Error, From, Name, Streams, Summary, Told};
use crate::kernel::codec::CodecError;
use crate::kernel::time::Timestamp;
use crate::log::kafka::partition_reader::Visit;

/// Which moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Just after that event, counted from 1.
    Version(u64),
    /// After the last event that is not later than that.
    Time(Timestamp),
}

/// What a stream was.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The last event of it then.
    pub version: u64,
    /// When that happened.
    pub at: Timestamp,
    /// The state for people.
    pub state: Value,
}

impl State {
    /// The answer for scripts.
    #[must_use]
    pub fn to_json(&self, stream: &Name, summary: &Summary) -> Value {
        json!({
            "stream": stream.to_string(),
            "version": self.version,
            "time": self.at.to_rfc3339(),
            "state": self.state,
            "source": summary.to_json(),
        })
    }
}

/// A fold under way, up to a moment.
struct Fold {
    moment: Moment,
    state: Box<dyn Folding>,
    /// The last event that was taken in.
    reached: Option<(u64, Timestamp)>,
    /// When the first event happened that is too late.
    later: Option<Timestamp>,
}

impl Fold {
    fn new(aggregate: &str, moment: Moment) -> Option<Self> {
        Some(Self { moment, state: unfolded(aggregate)?, reached: None, later: None })
    }

    fn take(&mut self, told: &Told) -> Result<Visit, CodecError> {
        if matches!(self.moment, Moment::Time(time) if told.at > time) {
            self.later = Some(told.at);
            return Ok(Visit::Stop);
        }
        self.state.take(&told.event_type, &told.fields, told.at)?;
        self.reached = Some((told.sequence, told.at));
        let is_there = self.moment == Moment::Version(told.sequence);
        Ok(if is_there { Visit::Stop } else { Visit::Continue })
    }

    fn answer(&self, stream: &Name) -> Result<State, Error> {
        let stream = stream.clone();
        match (self.reached, self.moment, self.later) {
            (None, _, None) => Err(Error::NoStream(stream)),
            (None, _, Some(first)) => Err(Error::NotYet { stream, first }),
            (Some((last, _)), Moment::Version(version), _) if last < version => {
                Err(Error::Beyond { stream, version, last })
            }
            (Some((version, at)), ..) => Ok(State { version, at, state: self.state.to_json() }),
        }
    }
}

impl Streams {
    /// Folds a stream up to a moment. The summary says whether the stream's end was reached: then
    /// there may be no answer because the end was not far enough.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub async fn state(
        &self,
        stream: &Name,
        moment: Moment,
        from: From,
    ) -> Result<(Result<State, Error>, Summary), Error> {
        let mut fold = Fold::new(&stream.aggregate, moment)
            .ok_or_else(|| Error::NoAggregate(stream.aggregate.clone()))?;
        let summary = self.read(stream, from, &mut |told| fold.take(&told)).await?;
        Ok((fold.answer(stream), summary))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::banking::account::{
        Account, AccountClosed, AccountCreated, AccountFrozen, AccountType, AccountUnfrozen,
        EntryCorrected, Event, MoneyDeposited, MoneyReceived, MoneyTransferred, MoneyWithdrawn,
        TransferReversed, TransferSettled,
    };
    use crate::domain::money::{Amount, Currency};
    use crate::kernel::decider::Decider;
    use crate::reading::streams::Source;

    fn amount() -> impl Strategy<Value = Amount> {
        let units = prop_oneof![0..100_000_000_000_i128, 0..10_i128.pow(26)];
        units.prop_map(|units| Amount::from_units(units).unwrap())
    }

    fn event() -> impl Strategy<Value = Event> {
        let transfer = 0..3_u8;
        (0..11_u8, amount(), amount(), transfer).prop_map(|(kind, amount, balance_after, id)| {
            let (user_id, currency) = ("ada".to_owned(), Currency::USD);
            let (transfer_id, other) = (format!("t-{id}"), format!("acc-{id}"));
            let (reference, reason) = (Some("Miete für März".to_owned()), None);
            match kind {
                0 => Event::AccountCreated(AccountCreated {
                    account_id: "acc".to_owned(),
                    user_id,
                    account_type: AccountType::Savings,
                    initial_deposit: balance_after,
                    currency,
                    slot_id: Some(other),
                }),
                1 => Event::MoneyDeposited(MoneyDeposited {
                    user_id,
                    currency,
                    amount,
                    balance_after,
                    reference,
                }),
                2 => Event::MoneyWithdrawn(MoneyWithdrawn {
                    user_id,
                    currency,
                    amount,
                    fee: amount,
                    balance_after,
                    reference,
                }),
                3 => Event::MoneyTransferred(MoneyTransferred {
                    user_id,
                    currency,
                    transfer_id,
                    to_account_id: other,
                    amount,
                    transfer_fee: amount,
                    balance_after,
                    reference,
                }),
                4 => Event::MoneyReceived(MoneyReceived {
                    user_id,
                    currency,
                    transfer_id,
                    from_account_id: other,
                    amount,
                    balance_after,
                    reference,
                }),
                5 => Event::TransferReversed(TransferReversed {
                    user_id,
                    currency,
                    transfer_id,
                    amount,
                    transfer_fee: amount,
                    balance_after,
                    reason,
                }),
                6 => Event::TransferSettled(TransferSettled {
                    user_id,
                    currency,
                    transfer_id,
                    to_account_id: other,
                    amount,
                }),
                7 => Event::AccountFrozen(AccountFrozen { user_id, currency, reason }),
                8 => Event::AccountUnfrozen(AccountUnfrozen { user_id, currency, reason }),
                9 => {
                    Event::AccountClosed(AccountClosed { user_id, currency, reason, slot_id: None })
                }
                _ => Event::EntryCorrected(EntryCorrected {
                    user_id,
                    currency,
                    compensates_event_id: other,
                    amount,
                    balance_after,
                    reason,
                }),
            }
        })
    }

    fn told(sequence: u64, at: Timestamp, event: &Event) -> Told {
        // As a row's payload: text that was written and is read again.
        let payload = serde_json::to_string(event).unwrap();
        Told {
            sequence,
            at,
            event_type: event.name().to_owned(),
            fields: serde_json::from_str(&payload).unwrap(),
            command_id: None,
            causation_id: None,
            correlation_id: None,
            actor: None,
            event_id: None,
            schema_version: Some(1),
            offset: 0,
            source: Source::ClickHouse,
        }
    }

    fn folded(log: &[(Timestamp, Event)], moment: Moment) -> Result<State, String> {
        let mut fold = Fold::new("banking.account", moment).unwrap();
        for (sequence, (at, event)) in (1..).zip(log) {
            if fold.take(&told(sequence, *at, event)).unwrap() == Visit::Stop {
                break;
            }
        }
        let stream = Name { aggregate: "banking.account".to_owned(), id: "acc".to_owned() };
        fold.answer(&stream).map_err(|error| error.to_string())
    }

    /// The rules' own fold of a prefix of the log.
    fn expected(log: &[(Timestamp, Event)]) -> Option<State> {
        let mut state = Account::default();
        for (at, event) in log {
            Account::evolve(&mut state, event, *at);
        }
        let (at, _) = log.last()?;
        Some(State { version: log.len() as u64, at: *at, state: state.to_json() })
    }

    proptest! {
        #[test]
        fn any_moment_is_a_fold_of_the_log_up_to_it(
            steps in proptest::collection::vec((0..3_i64, event()), 0..30),
            seconds in -1..70_i64,
        ) {
            let mut now = 0;
            let log: Vec<_> = steps
                .into_iter()
                .map(|(step, event)| {
                    now += step;
                    (Timestamp(now * 1_000_000), event)
                })
                .collect();
            for version in 1..=log.len() {
                let moment = Moment::Version(version as u64);
                prop_assert_eq!(folded(&log, moment).ok(), expected(&log[..version]));
            }
            prop_assert!(folded(&log, Moment::Version(log.len() as u64 + 1)).is_err());
            let time = Timestamp(seconds * 1_000_000);
            let count = log.iter().take_while(|(at, _)| *at <= time).count();
            prop_assert_eq!(folded(&log, Moment::Time(time)).ok(), expected(&log[..count]));
        }
    }

    #[test]
    fn what_never_was_is_named() {
        let frozen = Event::AccountFrozen(AccountFrozen {
            user_id: "ada".to_owned(),
            currency: Currency::USD,
            reason: None,
        });
        let log = [(Timestamp(5_000_000), frozen)];
        let beyond = folded(&log, Moment::Version(2)).unwrap_err();
        assert_eq!(beyond, "banking.account/acc has no version 2: it is at 1");
        let before = folded(&log, Moment::Time(Timestamp(4_999_999))).unwrap_err();
        assert!(before.ends_with("its first event is of 1970-01-01T00:00:05.000000Z"), "{before}");
        let nobody = folded(&[], Moment::Version(1)).unwrap_err();
        assert!(nobody.contains("no such stream"), "{nobody}");
    }

    #[test]
    fn amounts_are_text() {
        let sent = Event::MoneyTransferred(MoneyTransferred {
            user_id: "ada".to_owned(),
            currency: Currency::USD,
            transfer_id: "t-1".to_owned(),
            to_account_id: "acc-2".to_owned(),
            amount: Amount::parse("98.10").unwrap(),
            transfer_fee: Amount::parse("2").unwrap(),
            balance_after: Amount::parse("0.1").unwrap(),
            reference: None,
        });
        let state = folded(&[(Timestamp(1), sent)], Moment::Version(1)).unwrap().state;
        assert_eq!(state["balance"], "0.1");
        assert_eq!(state["under_way_total"], "100.1");
        let under_way = json!({"to_account_id": "acc-2", "amount": "98.1", "fee": "2"});
        assert_eq!(state["under_way"]["t-1"], under_way);
    }
}
