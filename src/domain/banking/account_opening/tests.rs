//! Every rule of the opening saga, one by one.

use uuid::Uuid;

use super::*;
use crate::domain::banking::account::{
    self, Account, AccountClosed, AccountCreated, AccountType, CreateAccount, Grant,
};
use crate::domain::banking::step::answer_due;
use crate::domain::money::{Amount, Currency};
use crate::kernel::decider::{Context, Decider};
use crate::kernel::scenario::{SCENARIO_ID, SCENARIO_NOW, given, scenario_context};
use crate::kernel::time::Timestamp;

fn context() -> Context {
    scenario_context::<Opening>(0, SCENARIO_NOW)
}

fn wanted() -> Wanted {
    Wanted {
        user_id: "user-1".to_owned(),
        account_id: SCENARIO_ID.to_owned(),
        account_type: AccountType::Savings,
        initial_deposit: Amount::whole(100),
        currency: Currency::USD,
        client_command_id: Uuid::nil().to_string(),
        client_reply_to: Some("me".to_owned()),
    }
}

fn started() -> Event {
    let wanted = wanted();
    Event::OpeningStarted(OpeningStarted {
        user_id: wanted.user_id,
        account_id: wanted.account_id,
        account_type: wanted.account_type,
        initial_deposit: wanted.initial_deposit,
        currency: wanted.currency,
        client_command_id: wanted.client_command_id,
        client_reply_to: wanted.client_reply_to,
        deadline: answer_due(&context(), 1),
    })
}

fn sent(step: Step, attempt: u32, reason: Option<&str>) -> Event {
    let wanted = wanted();
    Event::OpeningAdvanced(OpeningAdvanced {
        user_id: wanted.user_id,
        account_id: wanted.account_id,
        account_type: wanted.account_type,
        initial_deposit: wanted.initial_deposit,
        currency: wanted.currency,
        client_command_id: wanted.client_command_id,
        client_reply_to: wanted.client_reply_to,
        step,
        attempt,
        reason: reason.map(str::to_owned),
        deadline: answer_due(&context(), attempt),
    })
}

fn ended(outcome: Outcome, reason: Option<&str>) -> Event {
    Event::OpeningEnded(OpeningEnded {
        user_id: "user-1".to_owned(),
        account_id: SCENARIO_ID.to_owned(),
        outcome,
        reason: reason.map(str::to_owned),
    })
}

fn parked(step: Step, reason: &str) -> Event {
    let (user_id, reason) = ("user-1".to_owned(), reason.to_owned());
    Event::OpeningParked(OpeningParked { user_id, step, reason })
}

fn refuse(step: Step, code: &str) -> Command {
    Command::RecordRefused { step, code: code.to_owned() }
}

fn opened() -> Vec<Event> {
    let confirm = sent(Step::Confirm, 1, None);
    vec![started(), sent(Step::Open, 1, None), confirm, ended(Outcome::Opened, None)]
}

#[test]
fn a_slot_then_the_account_then_the_confirmation() {
    given::<Opening>([]).when(Command::StartOpening(wanted())).then([started()]);
    given::<Opening>([started()]).when(Command::StartOpening(wanted())).then_nothing();
    given::<Opening>([started()]).when(Command::RecordReserved).then([sent(Step::Open, 1, None)]);
    given::<Opening>(opened().into_iter().take(2)).when(Command::RecordOpened).then([sent(
        Step::Confirm,
        1,
        None,
    )]);
    given::<Opening>(opened().into_iter().take(3))
        .when(Command::RecordConfirmed)
        .then([ended(Outcome::Opened, None)]);
    for late in [Command::RecordReserved, Command::RecordOpened, Command::RecordConfirmed] {
        given::<Opening>(opened()).when(late).then_nothing();
    }
}

#[test]
fn without_a_slot_the_account_tells_the_client() {
    let denied = Command::RecordDenied { code: "AccountLimit".to_owned() };
    let told = || sent(Step::Refuse, 1, Some("AccountLimit"));
    given::<Opening>([started()]).when(denied).then([told()]);
    given::<Opening>([started()]).when(refuse(Step::Reserve, "AccountLimit")).then([told()]);
    given::<Opening>([started(), told()])
        .when(refuse(Step::Refuse, "AccountLimit"))
        .then([ended(Outcome::Refused, Some("AccountLimit"))]);
}

#[test]
fn a_slot_is_released_only_after_a_definite_refusal() {
    let opening = || given::<Opening>([started(), sent(Step::Open, 1, None)]);
    opening().when(refuse(Step::Open, "AccountExists")).then([sent(
        Step::Release,
        1,
        Some("AccountExists"),
    )]);
    for code in ["IdempotencyConflict", "Forbidden", "TooLarge"] {
        opening().when(refuse(Step::Open, code)).then([parked(Step::Open, code)]);
    }
    let releasing =
        [started(), sent(Step::Open, 1, None), sent(Step::Release, 1, Some("AccountExists"))];
    given::<Opening>(releasing.clone())
        .when(Command::RecordReleased)
        .then([ended(Outcome::Refused, Some("AccountExists"))]);
    given::<Opening>(releasing)
        .when(Command::RecordOpened)
        .then_rejected(Rejection::OpeningContradicted);
}

#[test]
fn no_answer_is_asked_for_again_and_then_parked() {
    let due = |attempt| Timestamp(answer_due(&context(), attempt).0);
    let late = due(1);
    let context = Context { now: late, ..context() };
    let Event::OpeningAdvanced(again) = sent(Step::Reserve, 2, None) else { unreachable!() };
    let again = OpeningAdvanced { deadline: answer_due(&context, 2), ..again };
    given::<Opening>([started()])
        .at(late)
        .when(Command::Wake)
        .then([Event::OpeningAdvanced(again)]);
    given::<Opening>([started()]).when(Command::Wake).then_nothing();
    given::<Opening>([started(), sent(Step::Reserve, 3, None)])
        .at(due(3))
        .when(Command::Wake)
        .then([parked(Step::Reserve, "no answer after 3 attempts")]);
    given::<Opening>([started(), parked(Step::Reserve, "x")]).when(Command::Resume).then([sent(
        Step::Reserve,
        1,
        None,
    )]);
    given::<Opening>([started(), parked(Step::Reserve, "x")])
        .when(Command::RecordReserved)
        .then([sent(Step::Open, 1, None)]);
}

#[test]
fn an_abandoned_opening_keeps_the_last_reason_and_goes_on_with_any_answer() {
    let abandon = || Command::Abandon { reason: Some("enough".to_owned()) };
    let reason = "abandoned: enough";
    let parked = |reason: &str| parked(Step::Reserve, reason);
    given::<Opening>([started()]).when(abandon()).then([parked(reason)]);
    given::<Opening>([started(), parked("x")]).when(abandon()).then([parked(reason)]);
    given::<Opening>([started(), parked(reason)]).when(abandon()).then_nothing();
    given::<Opening>([started(), parked(reason)]).when(Command::RecordReserved).then([sent(
        Step::Open,
        1,
        None,
    )]);
}

#[test]
fn a_closed_account_frees_its_slot() {
    given::<Opening>(opened()).when(Command::RecordClosed).then([sent(Step::Free, 1, None)]);
    given::<Opening>(opened().into_iter().take(3)).when(Command::RecordClosed).then([sent(
        Step::Free,
        1,
        None,
    )]);
    given::<Opening>(opened().into_iter().chain([sent(Step::Free, 1, None)]))
        .when(Command::RecordFreed)
        .then([ended(Outcome::Closed, None)]);
}

#[test]
fn a_start_after_the_end_sends_again_what_answers_the_client() {
    let start = || Command::StartOpening(wanted());
    given::<Opening>(opened()).when(start()).then([sent(Step::Open, 1, None)]);
    let state = given::<Opening>(opened()).when(start()).state();
    assert_eq!(state.phase, Phase::Ended(Outcome::Opened));
    let refuse = sent(Step::Refuse, 1, Some("AccountLimit"));
    let end = ended(Outcome::Refused, Some("AccountLimit"));
    given::<Opening>([started(), refuse.clone(), end]).when(start()).then([refuse]);
}

fn create(grant: Option<Grant>) -> account::Command {
    account::Command::CreateAccount(CreateAccount {
        account_id: SCENARIO_ID.to_owned(),
        user_id: "user-1".to_owned(),
        account_type: "SAVINGS".to_owned(),
        initial_deposit: Amount::whole(100),
        currency: "USD".to_owned(),
        grant,
    })
}

fn grant(refused: Option<&str>) -> Grant {
    Grant {
        slot_id: slot_id(SCENARIO_ID, Uuid::nil()),
        client_command_id: Uuid::nil(),
        client_reply_to: Some("me".to_owned()),
        refused: refused.map(str::to_owned),
    }
}

fn created(slot_id: Option<String>) -> account::Event {
    account::Event::AccountCreated(AccountCreated {
        account_id: SCENARIO_ID.to_owned(),
        user_id: "user-1".to_owned(),
        account_type: AccountType::Savings,
        initial_deposit: Amount::whole(100),
        currency: Currency::USD,
        slot_id,
    })
}

#[test]
fn an_account_is_made_by_one_slot_and_accepts_that_one_again() {
    let slot = || Some(slot_id(SCENARIO_ID, Uuid::nil()));
    given::<Account>([]).when(create(Some(grant(None)))).then([created(slot())]);
    given::<Account>([created(slot())]).when(create(Some(grant(None)))).then_nothing();
    given::<Account>([created(slot())]).when(create(None)).then_nothing();
    given::<Account>([created(None)])
        .when(create(Some(grant(None))))
        .then_rejected(account::Rejection::AccountExists);
    let other = Grant { slot_id: "other".to_owned(), ..grant(None) };
    given::<Account>([created(slot())])
        .when(create(Some(other)))
        .then_rejected(account::Rejection::AccountExists);
    given::<Account>([])
        .when(create(Some(grant(Some("AccountLimit")))))
        .then_rejected(account::Rejection::AccountLimit);
    let closed = account::Event::AccountClosed(AccountClosed {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        reason: None,
        slot_id: slot(),
    });
    given::<Account>([created(slot()), closed]).when(create(Some(grant(None)))).then_nothing();
}

#[test]
fn only_a_wish_without_a_grant_is_handed_on_and_only_the_other_answers_for_it() {
    let context = scenario_context::<Account>(0, SCENARIO_NOW);
    let dispatch = Account::hand_on(&create(None), &context, Some("me")).unwrap();
    assert_eq!(dispatch.aggregate, NAME);
    assert_eq!(dispatch.id, slot_id(SCENARIO_ID, Uuid::nil()));
    assert!(Account::on_behalf_of(&create(None)).is_none());
    assert!(!Account::is_internal(&create(None)));

    let granted = create(Some(grant(None)));
    assert!(Account::is_internal(&granted));
    assert!(Account::hand_on(&granted, &context, None).is_none());
    let behalf = Account::on_behalf_of(&granted).unwrap();
    assert_eq!((behalf.command_id, behalf.reply_to.as_deref()), (Uuid::nil(), Some("me")));
}
