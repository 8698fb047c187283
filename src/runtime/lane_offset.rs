//! Where a lane's group stands: asked of the brokers, and freed from what they have left open.
//!
//! Only the owner asks, once older owners are fenced off; so an offset that stays pending is one
//! that nobody will ever settle.

use std::sync::{Arc, PoisonError};

use super::lane::{Lane, Stopping, chain};
use crate::engine::protocol::{Committed, Input};
use crate::kernel::stream::Kind;
use crate::log::kafka::transaction::{InputOffset, TransactionalProducer};

/// How often the group's offset is asked for, once older owners are fenced off, before it is taken
/// to be held by a transaction that no broker will end: some 5 s.
const COMMITTED_TRIES: u32 = 2;

impl Lane {
    /// Asks the group where it stands, until it says.
    pub(super) fn read_committed(&mut self) -> Result<Input, Stopping> {
        let mut tries = 0;
        let place = self.place();
        let events = (self.topics.of(Kind::Events).to_owned(), self.partition);
        loop {
            if self.is_stopping() {
                return Err(Stopping);
            }
            if tries == COMMITTED_TRIES {
                tries = 0;
                self.end_what_is_open();
            }
            let witness = Arc::clone(&self.shared.witness);
            let mut witness = witness.lock().unwrap_or_else(PoisonError::into_inner);
            let ends = witness.ends(&place);
            let ends = ends.and_then(|ends| Ok((ends, witness.ends(&events)?)));
            let committed = ends.is_ok().then(|| witness.committed(&place));
            if ends.is_err() {
                witness.renew();
            }
            drop(witness);
            let error = match (ends, committed) {
                (Ok(((log_start, log_end), (_, events_end))), Some(Ok(committed))) => {
                    let offset = committed.filter(|_| !self.offset_is_lost);
                    let committed = Committed { offset, log_start, log_end, events_end };
                    return Ok(Input::Committed(committed));
                }
                // The brokers do tell, but not this: a transaction seems to hold it.
                (Ok(_), Some(Err(error))) => {
                    tries += 1;
                    error
                }
                (Ok(_), None) => continue,
                (Err(error), _) => error,
            };
            self.waiting("cannot read the committed offset", &error)?;
        }
    }

    /// Frees the group's offset from a transaction that will never end. What is committed then is
    /// older than what the log holds, so from here on only the position record counts.
    fn end_what_is_open(&mut self) {
        let Some(group) = (self.shared.membership)(&self.stop) else { return };
        let Some(producer) = &self.producer else { return };
        self.offset_is_lost = true;
        let input = InputOffset {
            topic: self.topics.commands.clone(),
            partition: self.partition,
            next_offset: 0,
            metadata: String::new(),
        };
        tracing::warn!(topic = %self.topics.commands, partition = self.partition,
            "the group's offset is held by a transaction that nobody ends; ending it, and going \
             on where the position record says");
        if let Err(error) = producer.end_what_is_open(&input, &group) {
            let error = chain(&error);
            tracing::warn!(topic = %self.topics.commands, partition = self.partition, error,
                "could not end it");
            let id = &self.transactional_id;
            self.producer = TransactionalProducer::open(&self.shared.kafka, id).ok();
        }
    }
}
