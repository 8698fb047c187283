//! What breaks inside a process: encodings that fail now and then, schemas that are not known yet;
//! and, planted, a state that is not rolled back with its transaction.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use millrace::kernel::codec::{Codec, CodecError, Decoded, EventType, Undecoded};
use millrace::kernel::decider::{Behalf, Context, Decider, Timer};
use millrace::kernel::reactor::Dispatch;
use millrace::kernel::result::CommandResult;
use millrace::kernel::stream::AggregateName;
use millrace::kernel::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The events of steps, which are sent again when they break, and of all that a saga is told, which
/// an operator sends again in the end. What a client wants and breaks, nobody sends again.
const SENT_AGAIN: [&str; 11] = [
    "account.MoneyReceived",
    "account.TransferSettled",
    "account.TransferReversed",
    "account.AccountCreated",
    "customer.SlotReserved",
    "customer.SlotDenied",
    "customer.SlotConfirmed",
    "customer.SlotReleased",
    "customer.SlotFreed",
    "banking.transfer.",
    "banking.account_opening.",
];

/// How a world's processes feel: whether the next thing breaks.
#[derive(Debug)]
pub(crate) struct Mood {
    dice: AtomicU64,
    /// One in so many; 0 is never.
    breaks: AtomicU32,
    unknown: AtomicU32,
}

impl Mood {
    pub(crate) fn new(seed: u64) -> Self {
        let (dice, breaks) = (AtomicU64::new(seed), AtomicU32::new(0));
        Self { dice, breaks, unknown: AtomicU32::new(0) }
    }

    /// From now on an encoding breaks once in so many times, and a schema is unknown once in so
    /// many.
    pub(crate) fn set(&self, breaks: u32, unknown: u32) {
        self.breaks.store(breaks, Ordering::Relaxed);
        self.unknown.store(unknown, Ordering::Relaxed);
    }

    fn one_in(&self, n: &AtomicU32) -> bool {
        let n = n.load(Ordering::Relaxed);
        if n == 0 {
            return false;
        }
        // SplitMix64. A world has one thread, so its dice fall the same way again.
        let mut mixed = self.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).is_multiple_of(u64::from(n))
    }
}

/// A codec in such a process.
pub(crate) struct Flaky<C> {
    codec: Arc<C>,
    mood: Arc<Mood>,
}

impl<C> Flaky<C> {
    pub(crate) fn new(codec: &Arc<C>, mood: &Arc<Mood>) -> Arc<Self> {
        Arc::new(Self { codec: Arc::clone(codec), mood: Arc::clone(mood) })
    }
}

impl<D: Decider, C: Codec<D>> Codec<D> for Flaky<C> {
    fn decode_command(
        &self,
        key_id: Option<&str>,
        value: Option<&[u8]>,
    ) -> Result<Decoded<D::Command>, Undecoded> {
        if self.mood.one_in(&self.mood.unknown) {
            return Err(Undecoded::UnknownSchema(7));
        }
        self.codec.decode_command(key_id, value)
    }

    fn encode_event(&self, event: &D::Event, value: &mut Vec<u8>) -> Result<EventType, CodecError> {
        let event_type = self.codec.encode_event(event, value)?;
        let is_sent_again = SENT_AGAIN.iter().any(|name| event_type.full_name.contains(name));
        if is_sent_again && self.mood.one_in(&self.mood.breaks) {
            let reason = "simulated".to_owned();
            if self.mood.dice.load(Ordering::Relaxed).is_multiple_of(2) {
                // A panic, without its message on the screen.
                std::panic::resume_unwind(Box::new(reason));
            }
            return Err(CodecError::Unencodable { what: "an event", reason });
        }
        Ok(event_type)
    }

    fn decode_event(&self, value: &[u8]) -> Result<D::Event, CodecError> {
        if self.mood.one_in(&self.mood.unknown) {
            return Err(CodecError::UnknownSchema(7));
        }
        self.codec.decode_event(value)
    }

    fn encode_result(&self, result: &CommandResult, value: &mut Vec<u8>) -> Result<(), CodecError> {
        self.codec.encode_result(result, value)
    }

    fn decode_result(&self, value: &[u8]) -> Result<CommandResult, CodecError> {
        self.codec.decode_result(value)
    }
}

/// Planted: a copy of a state is the state itself, so that what an aborted transaction did to it
/// stays.
pub(crate) struct Leaky<D>(std::marker::PhantomData<fn() -> D>);

#[derive(Debug)]
pub(crate) struct Leak<S>(Arc<Mutex<S>>);

impl<S> Leak<S> {
    fn lock(&self) -> MutexGuard<'_, S> {
        self.0.lock().unwrap()
    }
}

impl<S> Clone for Leak<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Default> Default for Leak<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S> PartialEq for Leak<S> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<S: Serialize> Serialize for Leak<S> {
    fn serialize<W: Serializer>(&self, serializer: W) -> Result<W::Ok, W::Error> {
        self.lock().serialize(serializer)
    }
}

impl<'de, S: Deserialize<'de>> Deserialize<'de> for Leak<S> {
    fn deserialize<R: Deserializer<'de>>(deserializer: R) -> Result<Self, R::Error> {
        Ok(Self(Arc::new(Mutex::new(S::deserialize(deserializer)?))))
    }
}

impl<D: Decider> Decider for Leaky<D> {
    const NAME: AggregateName = D::NAME;
    const STATE_SCHEMA: u16 = D::STATE_SCHEMA;
    const HAS_TIMERS: bool = D::HAS_TIMERS;

    type Command = D::Command;
    type Event = D::Event;
    type State = Leak<D::State>;
    type Rejection = D::Rejection;

    fn decide(
        command: &D::Command,
        state: &Self::State,
        context: &Context,
    ) -> Result<Vec<D::Event>, D::Rejection> {
        D::decide(command, &state.lock(), context)
    }

    fn evolve(state: &mut Self::State, event: &D::Event, at: Timestamp) {
        D::evolve(&mut state.lock(), event, at);
    }

    fn is_internal(command: &D::Command) -> bool {
        D::is_internal(command)
    }

    fn timers(event: &D::Event) -> Vec<Timer> {
        D::timers(event)
    }

    fn on_timer(timer: &str) -> Option<D::Command> {
        D::on_timer(timer)
    }

    fn hand_on(command: &D::Command, context: &Context, to: Option<&str>) -> Option<Dispatch> {
        D::hand_on(command, context, to)
    }

    fn on_behalf_of(command: &D::Command) -> Option<Behalf> {
        D::on_behalf_of(command)
    }
}

/// The codec of such a decider: the same bytes.
pub(crate) struct LeakyCodec<C>(pub(crate) Arc<C>);

impl<D: Decider, C: Codec<D>> Codec<Leaky<D>> for LeakyCodec<C> {
    fn decode_command(
        &self,
        key_id: Option<&str>,
        value: Option<&[u8]>,
    ) -> Result<Decoded<D::Command>, Undecoded> {
        self.0.decode_command(key_id, value)
    }

    fn encode_event(&self, event: &D::Event, value: &mut Vec<u8>) -> Result<EventType, CodecError> {
        self.0.encode_event(event, value)
    }

    fn decode_event(&self, value: &[u8]) -> Result<D::Event, CodecError> {
        self.0.decode_event(value)
    }

    fn encode_result(&self, result: &CommandResult, value: &mut Vec<u8>) -> Result<(), CodecError> {
        self.0.encode_result(result, value)
    }

    fn decode_result(&self, value: &[u8]) -> Result<CommandResult, CodecError> {
        self.0.decode_result(value)
    }
}
