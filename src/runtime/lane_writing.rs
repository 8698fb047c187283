//! What a lane writes: a transaction, chunk by chunk.

use std::sync::Arc;

use super::lane::Lane;
use super::lane_status::LaneState;
use crate::engine::protocol::{Chunk, Input, Transaction};
use crate::kernel::message::Outgoing;
use crate::kernel::stream::Kind;
use crate::log::kafka::transaction::{End, InputOffset, TransactionalProducer};

impl Lane {
    /// Begins a transaction and writes its first records.
    pub(super) fn transact(&mut self, transaction: Transaction) -> Input {
        let Some(producer) = &self.producer else {
            return Input::TransactionUnknown("there is no producer".to_owned());
        };
        let input = InputOffset {
            topic: self.topics.commands.clone(),
            partition: self.partition,
            next_offset: transaction.next_offset,
            metadata: transaction.metadata,
        };
        let membership = Arc::clone(&self.shared.membership);
        let stop = Arc::clone(&self.stop);
        match producer.begin(&input, || membership(&stop)) {
            Ok(()) => self.append(transaction.chunk),
            Err(end) => self.ended(end),
        }
    }

    /// Writes some more; commits behind the last.
    pub(super) fn append(&mut self, chunk: Chunk) -> Input {
        let Some(producer) = &self.producer else {
            return Input::TransactionUnknown("there is no producer".to_owned());
        };
        let Chunk { mut records, is_last } = chunk;
        let is_result = |record: &Outgoing| record.kind == Kind::Results;
        let marked = records.iter().rposition(is_result);
        let topic = |record: &Outgoing| self.topics.of(record.kind);
        if let Err(end) = producer.write(self.partition, &records, marked, topic) {
            return self.ended(end);
        }
        if is_last {
            return self.ended(producer.commit());
        }
        records.clear();
        Input::Written(records)
    }

    /// Gives up what was begun.
    pub(super) fn abort(&mut self) -> Input {
        let give_up = |producer: &TransactionalProducer| producer.abort("given up".to_owned());
        match self.producer.as_ref().map(give_up) {
            Some(End::Aborted(reason)) => Input::TransactionAborted(reason),
            Some(end) => self.ended(end),
            None => Input::TransactionUnknown("there is no producer".to_owned()),
        }
    }

    fn ended(&mut self, end: End) -> Input {
        match end {
            End::Committed(last_result) => {
                self.aborts = 0;
                self.offset_is_lost = false;
                // Also behind a fence in the middle of its work; a stamp comes before that.
                let state = self.status().state;
                if matches!(state, LaneState::Waiting | LaneState::Fencing) {
                    self.set_state(LaneState::Running);
                }
                Input::TransactionCommitted { last_result }
            }
            End::Aborted(reason) => {
                self.aborts += 1;
                let mut status = self.status();
                status.last_error = Some(reason.clone());
                // Once may be a rebalance; again and again is something to be seen.
                if self.aborts > 1 {
                    status.state = LaneState::Waiting;
                }
                drop(status);
                Input::TransactionAborted(reason)
            }
            End::Unknown(reason) => {
                self.status().last_error = Some(reason.clone());
                // Its producer may be fatal or fenced: the next fence makes a new one.
                self.producer = None;
                Input::TransactionUnknown(reason)
            }
        }
    }
}
