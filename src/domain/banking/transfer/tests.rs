//! Every rule of the transfer saga, one by one.

use super::*;
use crate::domain::banking::step::{ATTEMPTS_MAX, TIMER, answer_due, retry_due};
use crate::domain::money::{Amount, Currency};
use crate::kernel::decider::{Context, Decider, Timer};
use crate::kernel::scenario::{SCENARIO_NOW, given, scenario_context};
use crate::kernel::time::Timestamp;

const DAY: i64 = 24 * 60 * 60;

fn context() -> Context {
    scenario_context::<Transfer>(0, SCENARIO_NOW)
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn start() -> Command {
    Command::StartTransfer(StartTransfer {
        user_id: text("user-1"),
        currency: Currency::USD,
        from_account_id: text("a"),
        to_account_id: text("b"),
        amount: Amount::whole(98),
        fee: Amount::whole(2),
        reference: Some(text("rent")),
    })
}

/// As it was a minute before the scenario's moment: what is waited for is over.
fn started() -> Event {
    Event::TransferStarted(TransferStarted {
        user_id: text("user-1"),
        currency: Currency::USD,
        from_account_id: text("a"),
        to_account_id: text("b"),
        amount: Amount::whole(98),
        fee: Amount::whole(2),
        reference: Some(text("rent")),
        valid_until: SCENARIO_NOW.plus_seconds(DAY - 60),
        deadline: SCENARIO_NOW.plus_seconds(-49),
    })
}

fn received(deadline: Timestamp) -> Event {
    Event::TransferReceived(TransferReceived {
        user_id: text("user-1"),
        currency: Currency::USD,
        from_account_id: text("a"),
        to_account_id: text("b"),
        amount: Amount::whole(98),
        deadline,
    })
}

fn completed() -> Event {
    Event::TransferCompleted(TransferCompleted {
        user_id: text("user-1"),
        currency: Currency::USD,
        amount: Amount::whole(98),
    })
}

fn reversal(reason: &str, deadline: Timestamp) -> Event {
    Event::ReversalStarted(ReversalStarted {
        user_id: text("user-1"),
        currency: Currency::USD,
        from_account_id: text("a"),
        amount: Amount::whole(98),
        reason: text(reason),
        deadline,
    })
}

fn reversed(reason: &str) -> Event {
    Event::TransferReversed(TransferReversed {
        user_id: text("user-1"),
        currency: Currency::USD,
        amount: Amount::whole(98),
        fee: Amount::whole(2),
        reason: text(reason),
    })
}

fn failed(step: Step, attempt: u32, retry_at: Timestamp) -> Event {
    let (user_id, reason) = (text("user-1"), text("InternalError"));
    Event::StepFailed(StepFailed { user_id, step, attempt, reason, retry_at })
}

fn repeated(step: Step, attempt: u32, reason: Option<&str>) -> Event {
    Event::StepRepeated(StepRepeated {
        user_id: text("user-1"),
        step,
        attempt,
        deadline: answer_due(&context(), attempt),
        currency: Currency::USD,
        from_account_id: text("a"),
        to_account_id: text("b"),
        amount: Amount::whole(98),
        reference: Some(text("rent")),
        valid_until: SCENARIO_NOW.plus_seconds(DAY - 60),
        reason: reason.map(text),
    })
}

/// The same with its time over.
fn repeated_before(step: Step, attempt: u32) -> Event {
    let Event::StepRepeated(event) = repeated(step, attempt, None) else { unreachable!() };
    Event::StepRepeated(StepRepeated { deadline: SCENARIO_NOW.plus_seconds(-1), ..event })
}

fn parked(step: Step, reason: &str) -> Event {
    Event::TransferParked(TransferParked { user_id: text("user-1"), step, reason: text(reason) })
}

fn refuse(step: Step, code: &str) -> Command {
    Command::RecordRefused(RecordRefused { step, code: text(code) })
}

fn fail(step: Step) -> Command {
    Command::RecordFailed(RecordFailed { step, code: text("InternalError") })
}

fn resume(received: Option<bool>) -> Command {
    Command::Resume(Resume { received })
}

fn abandon() -> Command {
    Command::Abandon(Abandon { reason: Some(text("enough")) })
}

fn soon() -> Timestamp {
    answer_due(&context(), 1)
}

#[test]
fn a_start_fixes_until_when_it_can_be_received() {
    given::<Transfer>([]).when(start()).then([Event::TransferStarted(TransferStarted {
        user_id: text("user-1"),
        currency: Currency::USD,
        from_account_id: text("a"),
        to_account_id: text("b"),
        amount: Amount::whole(98),
        fee: Amount::whole(2),
        reference: Some(text("rent")),
        valid_until: SCENARIO_NOW.plus_seconds(DAY),
        deadline: soon(),
    })]);
    given::<Transfer>([started()]).when(start()).then_nothing();
    given::<Transfer>([started(), received(soon()), completed()]).when(start()).then_nothing();
}

#[test]
fn news_of_an_unknown_transfer_is_refused() {
    let news = [
        Command::RecordReceived,
        Command::RecordSettled,
        Command::RecordReversed,
        refuse(Step::Receive, "Expired"),
        fail(Step::Receive),
        Command::Wake,
        resume(None),
        abandon(),
    ];
    for command in news {
        assert!(Transfer::is_internal(&command));
        given::<Transfer>([]).when(command).then_rejected(Rejection::TransferNotFound);
    }
}

#[test]
fn what_was_received_is_settled_and_then_completed() {
    given::<Transfer>([started()]).when(Command::RecordReceived).then([received(soon())]);
    given::<Transfer>([started(), received(soon())]).when(Command::RecordReceived).then_nothing();
    given::<Transfer>([started(), received(soon())])
        .when(Command::RecordSettled)
        .then([completed()]);
    let end = || given::<Transfer>([started(), received(soon()), completed()]);
    for late in [
        Command::RecordReceived,
        Command::RecordSettled,
        Command::RecordReversed,
        refuse(Step::Receive, "Expired"),
        fail(Step::Settle),
        Command::Wake,
        resume(None),
        resume(Some(false)),
    ] {
        end().when(late).then_nothing();
    }
    end().when(abandon()).then_rejected(Rejection::TransferEnded);
}

#[test]
fn a_definite_refusal_reverses() {
    for code in
        ["AccountNotFound", "AccountInactive", "CurrencyMismatch", "LimitExceeded", "Expired"]
    {
        let reversal = || reversal(code, soon());
        given::<Transfer>([started()]).when(refuse(Step::Receive, code)).then([reversal()]);
        let parked = parked(Step::Receive, "no answer after 3 attempts");
        given::<Transfer>([started(), parked]).when(refuse(Step::Receive, code)).then([reversal()]);
        given::<Transfer>([started(), reversal()]).when(refuse(Step::Receive, code)).then_nothing();
        given::<Transfer>([started(), reversal()])
            .when(Command::RecordReversed)
            .then([reversed(code)]);
        given::<Transfer>([started(), reversal(), reversed(code)])
            .when(Command::RecordReversed)
            .then_nothing();
    }
}

#[test]
fn nothing_else_reverses() {
    for code in ["Unverifiable", "IdempotencyConflict", "Forbidden", "TooLarge", "InvalidField"] {
        given::<Transfer>([started()])
            .when(refuse(Step::Receive, code))
            .then([parked(Step::Receive, code)]);
        given::<Transfer>([started(), parked(Step::Receive, code)])
            .when(refuse(Step::Receive, code))
            .then_nothing();
    }
    given::<Transfer>([started()]).when(Command::RecordReversed).then_nothing();
    given::<Transfer>([started()]).when(Command::RecordSettled).then_nothing();
    given::<Transfer>([started(), received(soon())])
        .when(refuse(Step::Receive, "Expired"))
        .then_nothing();
    given::<Transfer>([started(), received(soon())])
        .when(refuse(Step::Settle, "AccountNotFound"))
        .then([parked(Step::Settle, "AccountNotFound")]);
}

#[test]
fn a_reversal_that_finds_nothing_open_waits_for_the_accounts_own_word() {
    let reversing = [started(), reversal("Expired", soon())];
    given::<Transfer>(reversing.clone())
        .when(refuse(Step::Reverse, "TransferNotOpen"))
        .then([parked(Step::Reverse, "TransferNotOpen")]);
    let parked = parked(Step::Reverse, "TransferNotOpen");
    given::<Transfer>(reversing.into_iter().chain([parked]))
        .when(Command::RecordReversed)
        .then([reversed("Expired")]);
}

#[test]
fn received_after_a_refusal_is_a_contradiction_that_is_said() {
    let reversing = [started(), reversal("Expired", soon())];
    given::<Transfer>(reversing.clone())
        .when(Command::RecordReceived)
        .then_rejected(Rejection::TransferContradicted);
    given::<Transfer>(reversing.into_iter().chain([reversed("Expired")]))
        .when(Command::RecordReceived)
        .then_rejected(Rejection::TransferContradicted);
}

#[test]
fn a_failed_step_is_sent_again_after_a_while_three_times_in_all() {
    let retry = retry_due(&context(), 1);
    given::<Transfer>([started()]).when(fail(Step::Receive)).then([failed(
        Step::Receive,
        1,
        retry,
    )]);
    given::<Transfer>([started(), failed(Step::Receive, 1, retry)])
        .when(fail(Step::Receive))
        .then_nothing();
    given::<Transfer>([started(), failed(Step::Receive, 1, retry)])
        .at(Timestamp(retry.0 - 1))
        .when(Command::Wake)
        .then_nothing();
    given::<Transfer>([started(), failed(Step::Receive, 1, SCENARIO_NOW)])
        .when(Command::Wake)
        .then([repeated(Step::Receive, 2, None)]);
    given::<Transfer>([started(), repeated(Step::Receive, ATTEMPTS_MAX, None)])
        .when(fail(Step::Receive))
        .then([parked(Step::Receive, "InternalError")]);
    given::<Transfer>([started()]).when(fail(Step::Settle)).then_nothing();
}

#[test]
fn a_failed_step_that_is_accepted_later_counts() {
    given::<Transfer>([started(), failed(Step::Receive, 1, soon())])
        .when(Command::RecordReceived)
        .then([received(soon())]);
    given::<Transfer>([started(), parked(Step::Receive, "InternalError")])
        .when(Command::RecordReceived)
        .then([received(soon())]);
}

#[test]
fn no_answer_is_no_refusal() {
    given::<Transfer>([started()]).when(Command::Wake).then([repeated(Step::Receive, 2, None)]);
    given::<Transfer>([started()])
        .at(SCENARIO_NOW.plus_seconds(-50))
        .when(Command::Wake)
        .then_nothing();
    given::<Transfer>([started(), repeated_before(Step::Receive, 3)])
        .when(Command::Wake)
        .then([parked(Step::Receive, "no answer after 3 attempts")]);
    given::<Transfer>([started(), parked(Step::Receive, "x")]).when(Command::Wake).then_nothing();
    let reversing = [started(), reversal("Expired", SCENARIO_NOW)];
    given::<Transfer>(reversing).when(Command::Wake).then([repeated(
        Step::Reverse,
        2,
        Some("Expired"),
    )]);
}

#[test]
fn an_operator_resumes_with_the_same_step() {
    given::<Transfer>([started(), parked(Step::Receive, "x")]).when(resume(None)).then([repeated(
        Step::Receive,
        1,
        None,
    )]);
    given::<Transfer>([started(), parked(Step::Receive, "x"), repeated(Step::Receive, 1, None)])
        .when(resume(None))
        .then_nothing();
    given::<Transfer>([started(), received(soon()), parked(Step::Settle, "x")])
        .when(resume(Some(true)))
        .then([repeated(Step::Settle, 1, None)]);
}

#[test]
fn the_receivers_history_decides_what_nobody_else_can() {
    let unverifiable = || given::<Transfer>([started(), parked(Step::Receive, "Unverifiable")]);
    unverifiable().when(resume(Some(true))).then([received(soon())]);
    unverifiable().when(resume(Some(false))).then_rejected(Rejection::StillReceivable);
    let late = SCENARIO_NOW.plus_seconds(9 * DAY);
    let context = Context { now: late, ..context() };
    unverifiable()
        .at(late)
        .when(resume(Some(false)))
        .then([reversal("NotReceived", answer_due(&context, 1))]);
}

#[test]
fn an_abandoned_transfer_is_parked_and_reverses_nothing() {
    let reason = "abandoned: enough";
    given::<Transfer>([started()]).when(abandon()).then([parked(Step::Receive, reason)]);
    given::<Transfer>([started(), parked(Step::Receive, reason)]).when(abandon()).then_nothing();
    // One that was parked before is parked for the operator's reason from now on.
    given::<Transfer>([started(), parked(Step::Receive, "Unverifiable")])
        .when(abandon())
        .then([parked(Step::Receive, reason)]);
    given::<Transfer>([started(), parked(Step::Receive, reason)])
        .when(Command::RecordReceived)
        .then([received(soon())]);
}

#[test]
fn there_is_one_timer_while_something_is_waited_for() {
    let set = |at| vec![Timer::Set { name: TIMER, at }];
    assert_eq!(Transfer::timers(&received(soon())), set(soon()));
    assert_eq!(Transfer::timers(&reversal("x", soon())), set(soon()));
    assert_eq!(Transfer::timers(&failed(Step::Receive, 1, SCENARIO_NOW)), set(SCENARIO_NOW));
    assert_eq!(Transfer::timers(&repeated(Step::Receive, 1, None)), set(soon()));
    for event in [completed(), reversed("x"), parked(Step::Receive, "x")] {
        assert_eq!(Transfer::timers(&event), [Timer::Clear { name: TIMER }]);
    }
    assert_eq!(Transfer::on_timer(TIMER), Some(Command::Wake));
    assert_eq!(Transfer::on_timer("other"), None);
}
