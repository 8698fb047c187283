//! What must hold of a log, whatever happened while it was written: log + what was sent ->
//! findings. Pure, so that a doctored log shows what it finds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use rust_decimal::Decimal;
use uuid::Uuid;

use crate::harness::kafka::own_partition;
use crate::log::{Answer, Event, Log};
use crate::model::{Expected, Model, Sent};

/// How many findings of a kind are told in full.
const TOLD_MAX: usize = 5;

/// What is wrong, by kind.
#[derive(Default)]
pub(crate) struct Findings(BTreeMap<&'static str, (usize, Vec<String>)>);

impl Findings {
    fn add(&mut self, kind: &'static str, what: impl FnOnce() -> String) {
        let (count, told) = self.0.entry(kind).or_default();
        *count += 1;
        if told.len() < TOLD_MAX {
            told.push(what());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The kinds that were found.
    pub(crate) fn kinds(&self) -> Vec<&'static str> {
        self.0.keys().copied().collect()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, (count, told)) in &self.0 {
            writeln!(f, "{kind}: {count}")?;
            for one in told {
                writeln!(f, "  {one}")?;
            }
        }
        Ok(())
    }
}

/// Everything that is wrong with a log.
pub(crate) fn check(log: &Log, sent: &HashMap<Uuid, Sent>, partitions: i32) -> Findings {
    let mut findings = Findings::default();
    streams_are_dense(log, partitions, &mut findings);
    commands_are_applied_once(log, sent, &mut findings);
    money_is_conserved(log, &mut findings);
    let first = answers_are_one_each(log, sent, &mut findings);
    decisions_are_right(log, sent, &first, &mut findings);
    order_is_kept(sent, &first, &mut findings);
    findings
}

/// Each stream's events stand in its own partition, once, in order, without a hole.
fn streams_are_dense(log: &Log, partitions: i32, findings: &mut Findings) {
    let mut last: HashMap<&str, &Event> = HashMap::new();
    let mut ids = HashSet::new();
    for event in &log.events {
        if event.place.partition != own_partition(event.account.as_bytes(), partitions) {
            findings.add("event on a foreign partition", || format!("{event:?}"));
        }
        let before = last.insert(&event.account, event);
        let (sequence, micros) = before.map_or((0, 0), |one| (one.sequence, one.micros));
        if event.sequence <= sequence {
            findings.add("doubled or reordered event", || format!("{event:?} after {before:?}"));
        } else if event.sequence > sequence + 1 {
            findings.add("gap in a stream", || format!("{event:?} after {before:?}"));
        }
        if event.micros < micros {
            findings.add("time goes back in a stream", || format!("{event:?} after {before:?}"));
        }
        if !ids.insert(&event.id) {
            findings.add("event id twice", || format!("{event:?}"));
        }
    }
}

/// Every command of this load has one event at most.
fn commands_are_applied_once(log: &Log, sent: &HashMap<Uuid, Sent>, findings: &mut Findings) {
    let mut applied: HashMap<Uuid, &Event> = HashMap::new();
    for event in &log.events {
        if let Some(before) = applied.insert(event.command_id, event) {
            findings.add("command applied twice", || format!("{event:?} and {before:?}"));
        }
        if !sent.contains_key(&event.command_id) {
            findings.add("event of nobody's command", || format!("{event:?}"));
        }
    }
}

/// At every prefix: no balance below zero, and what came in is what is there, what went out and
/// the fees.
fn money_is_conserved(log: &Log, findings: &mut Findings) {
    let mut balances: HashMap<&str, Decimal> = HashMap::new();
    let mut sums: HashMap<&str, Decimal> = HashMap::new();
    for event in &log.events {
        let change = match event.name.as_str() {
            "AccountCreated" | "MoneyDeposited" => event.amount,
            "MoneyWithdrawn" | "MoneyTransferred" => -(event.amount + event.fee),
            _ => Decimal::ZERO,
        };
        let before = balances.get(event.account.as_str()).copied().unwrap_or_default();
        let after = event.balance_after.unwrap_or(before);
        if after < Decimal::ZERO {
            findings.add("balance below zero", || format!("{event:?}"));
        }
        balances.insert(&event.account, after);
        let sum = sums.entry(&event.currency).or_default();
        *sum += change - (after - before);
        if !sum.is_zero() {
            findings.add("money appeared or vanished", || format!("{sum} at {event:?}"));
            *sum = Decimal::ZERO;
        }
    }
}

/// Every record that a client sent has one answer; the first decides, the others repeat it.
/// Gives each command's first answer.
fn answers_are_one_each<'l>(
    log: &'l Log,
    sent: &HashMap<Uuid, Sent>,
    findings: &mut Findings,
) -> HashMap<Uuid, &'l Answer> {
    let mut by_id: HashMap<Uuid, Vec<&Answer>> = HashMap::new();
    for answer in &log.answers {
        by_id.entry(answer.id).or_default().push(answer);
    }
    for (id, answers) in &by_id {
        let count = log.commands.get(id).copied().unwrap_or_default();
        if answers.len() != count || !sent.contains_key(id) {
            let found = answers.len();
            findings.add("answers and commands differ in number", || {
                format!("{id}: {count} sent, {found} answers")
            });
        }
    }
    for id in sent.keys().filter(|id| !by_id.contains_key(id)) {
        findings.add("command without an answer", || format!("{id}: {:?}", sent[id]));
    }
    let mut first = HashMap::new();
    for (id, answers) in by_id {
        let deciding: Vec<&Answer> =
            answers.iter().copied().filter(|one| is_deciding(one)).collect();
        let [one] = deciding[..] else {
            let count = deciding.len();
            findings.add("not one first answer", || format!("{id} has {count}: {answers:?}"));
            continue;
        };
        for other in &answers {
            if other.is_duplicate && other.digest != one.digest {
                findings.add("a repeat says something else", || format!("{other:?}, {one:?}"));
            }
            if other.place < one.place {
                findings.add("a repeat before the answer", || format!("{other:?}, {one:?}"));
            }
        }
        first.insert(id, one);
    }
    first
}

fn is_deciding(answer: &Answer) -> bool {
    !answer.is_duplicate && answer.code.as_deref() != Some("IdempotencyConflict")
}

/// Replays every decision in the order of the answers on a model of its own.
fn decisions_are_right(
    log: &Log,
    sent: &HashMap<Uuid, Sent>,
    first: &HashMap<Uuid, &Answer>,
    findings: &mut Findings,
) {
    let events: HashMap<(&str, u64), &Event> =
        log.events.iter().map(|event| ((event.account.as_str(), event.sequence), event)).collect();
    let mut accounts: HashMap<&str, Model> = HashMap::new();
    let mut told = 0;
    for answer in log.answers.iter().filter(|answer| is_deciding(answer)) {
        let Some(command) = sent.get(&answer.id) else { continue };
        if !first.contains_key(&answer.id) {
            continue; // It has several, which is told already.
        }
        if answer.account != command.account {
            findings.add("answer of another account", || format!("{answer:?} to {command:?}"));
        }
        let model = accounts.entry(&command.account).or_default();
        let expected = model.decide(command);
        let sequence = answer.sequences.map(|(from, _)| from);
        let event = sequence.and_then(|at| events.get(&(command.account.as_str(), at)).copied());
        told += usize::from(answer.sequences.is_some());
        if answer.sequences.is_some() && event.is_none() {
            findings.add("lost event", || format!("{answer:?}"));
        }
        if let Err(reason) = agrees(answer, event, model, &expected) {
            findings.add("wrong decision", || {
                format!("{reason}: {answer:?}, {event:?} to {command:?} at {model:?}")
            });
        }
        // What stands in the log is the past; the next decision must fit it.
        if let Some(event) = event {
            model.take(event);
        }
    }
    if told != log.events.len() {
        findings.add("events and answers differ in number", || {
            format!("{told} told by answers, {} in the log", log.events.len())
        });
    }
}

fn agrees(
    answer: &Answer,
    event: Option<&Event>,
    model: &Model,
    expected: &Expected,
) -> Result<(), String> {
    let same = |what: &str, is_same: bool| match is_same {
        true => Ok(()),
        false => Err(format!("{what}, expected {expected:?}")),
    };
    match expected {
        Expected::Refused { code, details } => {
            same("outcome", answer.outcome == "REJECTED")?;
            same("code", answer.code.as_deref() == Some(*code))?;
            let told = |(name, value): &(&str, String)| answer.details.get(*name) == Some(value);
            same("details", details.iter().all(told))?;
            same("sequences of a refusal", answer.sequences.is_none())?;
            same("version", answer.version == model.version)
        }
        Expected::Nothing => {
            same("outcome", answer.outcome == "ACCEPTED" && answer.code.is_none())?;
            same("sequences", answer.sequences.is_none())?;
            same("version", answer.version == model.version)
        }
        Expected::Event { name, amount, fee, balance } => {
            same("outcome", answer.outcome == "ACCEPTED" && answer.code.is_none())?;
            let next = model.version + 1;
            same("sequences", answer.sequences == Some((next, next)))?;
            same("version", answer.version == next)?;
            let Some(event) = event else { return Ok(()) };
            same("the event's command", event.command_id == answer.id)?;
            same("the event", event.name == *name)?;
            same("amount", event.amount == *amount && event.fee == *fee)?;
            same("balance", event.balance_after.is_none_or(|after| after == *balance))
        }
    }
}

/// What one client sent for one account is decided in that order.
fn order_is_kept(
    sent: &HashMap<Uuid, Sent>,
    first: &HashMap<Uuid, &Answer>,
    findings: &mut Findings,
) {
    let mut by_sender: BTreeMap<(usize, &str), Vec<(u64, &Answer)>> = BTreeMap::new();
    for (id, command) in sent.iter().filter(|(_, command)| !command.repeated_by_another) {
        if let Some(answer) = first.get(id) {
            let key = (command.client, command.account.as_str());
            by_sender.entry(key).or_default().push((command.order, answer));
        }
    }
    for (key, mut commands) in by_sender {
        commands.sort_unstable_by_key(|(order, _)| *order);
        for pair in commands.windows(2) {
            if pair[0].1.place > pair[1].1.place {
                findings.add("a client's order is lost", || format!("{key:?}: {pair:?}"));
            }
        }
    }
}
