//! All wiring on one screen: which aggregates a domain has, and who handles them.

use std::sync::Arc;

use crate::codec::banking::AccountCodec;
use crate::codec::schemas::Schemas;
use crate::domain::banking::account::Account;
use crate::engine::command_handler::CommandHandler;
use crate::kernel::codec::Codec;
use crate::kernel::decider::Decider;
use crate::runtime::handler_group::Aggregate;

/// The domains that have command handlers, each with its aggregates.
#[must_use]
pub fn handlers(schemas: &Arc<Schemas>) -> Vec<(&'static str, Vec<Aggregate>)> {
    let account = handled_by::<Account, _>(AccountCodec::new(Arc::clone(schemas)));
    vec![("banking", vec![account])]
}

fn handled_by<D: Decider, C: Codec<D>>(codec: C) -> Aggregate {
    let codec = Arc::new(codec);
    Aggregate {
        name: D::NAME,
        make: Arc::new(move |settings| {
            Box::new(CommandHandler::<D, C>::new(settings, Arc::clone(&codec)))
        }),
    }
}
