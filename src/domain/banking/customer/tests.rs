//! Every rule of a customer's slots, one by one.

use super::*;
use crate::kernel::scenario::given;

fn taken(slot: &str) -> SlotTaken {
    SlotTaken {
        user_id: "user-1".to_owned(),
        slot_id: slot.to_owned(),
        account_id: format!("account of {slot}"),
    }
}

fn reserve(slot: &str) -> Command {
    let SlotTaken { user_id, slot_id, account_id } = taken(slot);
    Command::ReserveSlot { user_id, slot_id, account_id }
}

fn confirm(slot: &str) -> Command {
    Command::ConfirmSlot { slot_id: slot.to_owned() }
}

fn release(slot: &str) -> Command {
    Command::ReleaseSlot { slot_id: slot.to_owned() }
}

fn free(slot: &str) -> Command {
    Command::FreeSlot { slot_id: slot.to_owned() }
}

fn reserved(slot: &str) -> Event {
    Event::SlotReserved(taken(slot))
}

fn denied(slot: &str) -> Event {
    let SlotTaken { user_id, slot_id, account_id } = taken(slot);
    Event::SlotDenied(SlotDenied { user_id, slot_id, account_id, code: "AccountLimit".to_owned() })
}

fn five() -> Vec<Event> {
    ["1", "2", "3", "4", "5"].map(reserved).to_vec()
}

fn after(events: impl IntoIterator<Item = Event>) -> crate::kernel::scenario::Given<Customer> {
    given(five().into_iter().chain(events))
}

#[test]
fn five_slots_are_given_and_the_sixth_is_denied() {
    given::<Customer>([]).when(reserve("1")).then([reserved("1")]);
    given::<Customer>(five().into_iter().take(4)).when(reserve("5")).then([reserved("5")]);
    after([]).when(reserve("6")).then([denied("6")]);
    after([Event::SlotConfirmed(taken("1"))]).when(reserve("6")).then([denied("6")]);
}

#[test]
fn a_slot_given_back_can_be_given_again_under_another_id() {
    after([Event::SlotReleased(taken("1"))]).when(reserve("6")).then([reserved("6")]);
    after([Event::SlotFreed(taken("1"))]).when(reserve("6")).then([reserved("6")]);
}

#[test]
fn whatever_is_sent_again_changes_nothing() {
    after([]).when(reserve("5")).then_nothing();
    after([denied("6"), Event::SlotFreed(taken("1"))])
        .when(reserve("6"))
        .then_rejected(Rejection::AccountLimit);
    after([Event::SlotFreed(taken("1"))]).when(reserve("1")).then_rejected(Rejection::SlotOver);
    for command in [confirm("1"), release("1"), free("1")] {
        after([Event::SlotFreed(taken("1"))]).when(command.clone()).then_nothing();
        after([Event::SlotReleased(taken("1"))]).when(command).then_nothing();
    }
    after([Event::SlotConfirmed(taken("1"))]).when(confirm("1")).then_nothing();
}

#[test]
fn a_slot_is_confirmed_released_or_freed() {
    after([]).when(confirm("1")).then([Event::SlotConfirmed(taken("1"))]);
    after([]).when(release("1")).then([Event::SlotReleased(taken("1"))]);
    after([]).when(free("1")).then([Event::SlotFreed(taken("1"))]);
    let confirmed = || after([Event::SlotConfirmed(taken("1"))]);
    confirmed().when(release("1")).then_nothing();
    confirmed().when(free("1")).then([Event::SlotFreed(taken("1"))]);
    for command in [confirm("9"), release("9"), free("9")] {
        assert!(Customer::is_internal(&command));
        after([]).when(command).then_rejected(Rejection::SlotNotFound);
    }
}
