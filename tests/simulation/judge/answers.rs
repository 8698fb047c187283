//! Results against events: every command is applied at most once, and told what became of it.

use std::collections::BTreeMap;

use millrace::domain::banking::account::{self, Event};
use millrace::domain::banking::account_opening::slot_id;
use millrace::domain::banking::{account_opening, transfer};
use millrace::kernel::reactor::step_id;
use millrace::kernel::result::{CommandResult, Outcome};
use millrace::kernel::stream::AggregateName;
use uuid::Uuid;

use super::Verdict;
use super::story::{Fact, Happened, Story, Told};
use crate::clients::{Clients, Sent, What};

/// A command: its aggregate, its stream, its id, and whether a process manager has sent it.
type Asked<'s> = (AggregateName, &'s str, Uuid, bool);
/// For so long an answer is remembered.
const WINDOW_SECONDS: i64 = 24 * 60 * 60;

pub(super) fn judge(story: &Story, clients: &Clients, verdict: &mut Verdict) {
    let firsts = first_answers(story, clients, verdict);
    events_follow_from_answers(story, &firsts);
    for (id, sent) in &clients.sent {
        let answers = firsts.get(&(account::NAME, sent.account.as_str(), *id, false));
        let answers = answers.unwrap_or_else(|| panic!("no result for {id}: {sent:?}"));
        if sent.what != What::Opening {
            assert!(answers.len() <= sent.times, "{id} was decided too often: {sent:?}");
        }
        for answer in answers {
            is_a_fitting_answer(sent, answer);
            verdict.refusals += u64::from(answer.outcome == Outcome::Rejected);
        }
    }
    each_clients_order_is_kept(clients, &firsts);
    dead_letters_hold_each_bad_command_once(story, clients, &firsts);
}

/// The answers that are no repeats. Within the time that they are remembered there is one for an
/// id, and every repeat says the same.
fn first_answers<'s>(
    story: &'s Story,
    clients: &Clients,
    verdict: &mut Verdict,
) -> BTreeMap<Asked<'s>, Vec<&'s CommandResult>> {
    let mut firsts: BTreeMap<Asked<'s>, Vec<&CommandResult>> = BTreeMap::new();
    for Told { aggregate, internal, at, result } in &story.results {
        let asked = (*aggregate, result.aggregate_id.as_str(), result.command_id, *internal);
        let known = firsts.entry(asked).or_default();
        let forgotten = known.last().map(|last| last.decided_at.plus_seconds(WINDOW_SECONDS));
        // A step may be decided anew while its client's answer is still remembered: the client
        // hears of it once that is forgotten, as of the repeat that it is.
        let sent = clients.sent.get(&result.command_id).filter(|_| !internal);
        let is_openings = sent.is_some_and(|sent| sent.what == What::Opening);
        // However late a handler comes to it: what counts is when a repeat was appended. An
        // opening's answer is given by its step.
        let last_sent = story.last_sent.get(&result.command_id);
        let asked_at = last_sent.copied().filter(|_| !is_openings).unwrap_or(result.decided_at);
        let is_late = forgotten.is_some_and(|forgotten| asked_at > forgotten);
        if result.duplicate && !(is_late && is_openings) {
            verdict.duplicates += 1;
            let earlier = known.last().unwrap_or_else(|| panic!("a repeat of nothing: {asked:?}"));
            // The first that a client hears may be a repeat of its step's answer.
            let of = |one: &CommandResult| CommandResult { duplicate: true, ..one.clone() };
            // A step may be committed long after it was decided, and be repeated after that, when
            // what its client was told before is forgotten.
            let is_told_late = forgotten.is_some_and(|forgotten| *at > forgotten);
            if is_openings && is_told_late && of(result) != of(earlier) {
                known.push(result);
            } else {
                assert_eq!(of(result), of(earlier));
            }
        } else if result.outcome != Outcome::Failed {
            let earlier = known.last();
            assert!(earlier.is_none() || is_late, "{asked:?} twice: {earlier:?} {result:?}");
            known.push(result);
        }
    }
    firsts
}

/// What an answer promises is there, and nothing else is.
fn events_follow_from_answers(story: &Story, firsts: &BTreeMap<Asked<'_>, Vec<&CommandResult>>) {
    let mut by_command: BTreeMap<(AggregateName, &str, Uuid), Vec<u64>> = BTreeMap::new();
    let mut slots: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for event in &story.events {
        let Happened { aggregate, stream, sequence, command_id, fact, .. } = event;
        by_command.entry((*aggregate, stream, *command_id)).or_default().push(*sequence);
        if let Fact::Account(Event::AccountCreated(created)) = fact {
            slots.insert(stream, created.slot_id.as_deref());
        }
    }
    for ((aggregate, stream, id, internal), answers) in firsts {
        let promised: Vec<u64> = answers
            .iter()
            .filter_map(|answer| Some(answer.first_sequence?..=answer.last_sequence?))
            .flatten()
            .collect();
        if promised == [1] && *aggregate == account::NAME {
            // The event names the client's command; the step that made it is the slot's.
            let slot = slots[stream].unwrap();
            if *internal {
                assert_eq!(*id, step_id(slot, "OPEN"), "{stream} and its slot {slot}");
                continue;
            }
            assert_eq!(slot, slot_id(stream, *id), "{id} of {stream}");
        }
        let found = by_command.remove(&(*aggregate, stream, *id)).unwrap_or_default();
        assert_eq!(found, promised, "events of {id} in {aggregate} {stream} against its results");
    }
    // What is left follows from timers, which nobody waits for.
    for ((aggregate, stream, id), sequences) in by_command {
        let is_saga = [transfer::NAME, account_opening::NAME].contains(&aggregate);
        assert!(is_saga && sequences.len() == 1, "{sequences:?} of {id} in {aggregate} {stream}");
    }
}

fn is_a_fitting_answer(sent: &Sent, answer: &CommandResult) {
    let code = answer.code.as_deref();
    match sent.what {
        What::Bad => {
            let codes = ["Undecodable", "MissingField", "InvalidField"];
            assert!(code.is_some_and(|code| codes.contains(&code)), "{sent:?} {answer:?}");
        }
        What::Forged => assert_eq!(code, Some("Forbidden"), "{sent:?} {answer:?}"),
        What::Opening => {
            let codes = [None, Some("AccountExists"), Some("AccountLimit")];
            assert!(codes.contains(&code), "{sent:?} {answer:?}");
        }
        What::Wish | What::Keyless => assert_ne!(code, Some("Forbidden"), "{sent:?} {answer:?}"),
    }
}

/// What one client asked of one account happened in the order in which it asked. An opening is
/// asked of somebody else first, and a repeat after a day is another command.
fn each_clients_order_is_kept(
    clients: &Clients,
    firsts: &BTreeMap<Asked<'_>, Vec<&CommandResult>>,
) {
    let mut last: BTreeMap<(usize, &str), (u32, u64)> = BTreeMap::new();
    let mut in_order: Vec<_> = clients.sent.iter().collect();
    in_order.retain(|(_, sent)| sent.what == What::Wish);
    in_order.sort_by_key(|(_, sent)| (sent.client, sent.number));
    for (id, sent) in in_order {
        let answers = &firsts[&(account::NAME, sent.account.as_str(), *id, false)];
        let Some(sequence) = answers[0].first_sequence else { continue };
        let place = last.entry((sent.client, &sent.account)).or_default();
        assert!(sequence > place.1, "{sent:?} overtook {place:?}");
        *place = (sent.number, sequence);
    }
}

fn dead_letters_hold_each_bad_command_once(
    story: &Story,
    clients: &Clients,
    firsts: &BTreeMap<Asked<'_>, Vec<&CommandResult>>,
) {
    let mut letters: BTreeMap<Uuid, i64> = BTreeMap::new();
    for (_, id) in &story.dead_letters {
        *letters.entry(*id).or_default() += 1;
    }
    for (id, sent) in &clients.sent {
        let answers = &firsts[&(account::NAME, sent.account.as_str(), *id, false)];
        let count = if sent.what == What::Bad { answers.len() } else { 0 };
        let expected = i64::try_from(count).unwrap();
        assert_eq!(letters.remove(id).unwrap_or_default(), expected, "{sent:?}");
    }
    for told in &story.results {
        if told.result.outcome == Outcome::Failed {
            *letters.entry(told.result.command_id).or_default() -= 1;
        }
    }
    letters.retain(|_, count| *count != 0);
    assert!(letters.is_empty(), "dead letters out of nowhere, or missing: {letters:?}");
}
