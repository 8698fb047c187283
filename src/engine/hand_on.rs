//! A client's command that somebody else has to decide first: wish -> dispatch, and, when another
//! command has answered it, that answer -> the client's one result.

use super::metadata::Metadata;
use super::origin::Source;
use super::reply::{Request, Verdict, command_result};
use super::turn::Turn;
use crate::kernel::codec::Codec;
use crate::kernel::decider::{Behalf, Context, Decider};
use crate::kernel::result::{CommandResult, Outcome};

impl<D: Decider, C: Codec<D>> Turn<'_, D, C> {
    /// Sends an accepted command on that is not ours to accept. A process manager's commands, and
    /// what gives no event, are always ours.
    pub(super) fn hand_on(
        &mut self,
        request: &Request<'_>,
        command: &D::Command,
        events: &[D::Event],
        context: &Context,
    ) -> Option<Verdict> {
        let record = request.record?;
        if request.from_process_manager || events.is_empty() {
            return None;
        }
        let mut dispatch = D::hand_on(command, context, request.metadata.reply_to)?;
        let command_id = request.command_id.to_string();
        let correlation_id = request.metadata.correlation_id.unwrap_or(&command_id);
        dispatch.correlation_id.get_or_insert_with(|| correlation_id.to_owned());
        dispatch.causation_id.get_or_insert(command_id);
        dispatch.metadata = carried(&request.metadata);
        let source = Source {
            group: self.settings.group.clone(),
            topic_id: self.settings.commands_topic_id,
            partition: self.settings.partition,
        };
        let cause = (&source, record.offset, 0);
        match self.settings.targets.address(&dispatch, cause, &self.settings.key) {
            Ok(crossing) => {
                self.crossings.push(crossing);
                Some(Verdict::HandedOn)
            }
            // Checked when the handlers are planned. Decided here it would break the rule for which
            // somebody else is asked.
            Err(reason) => Some(Verdict::Failed(reason)),
        }
    }

    /// The command with its client's id as the cause of its events, unless that id was answered for
    /// another command meanwhile.
    pub(super) fn naming_its_client<'r>(
        &mut self,
        request: Request<'r>,
        behalf: Option<&Behalf>,
    ) -> Request<'r> {
        let on_behalf_of = behalf.and_then(|behalf| {
            let known = self.known(&client_of(&request, behalf));
            let is_another = matches!(known, Some(Verdict::Refused(_)));
            (!is_another).then_some(behalf.command_id)
        });
        Request { on_behalf_of, ..request }
    }

    /// Gives the client that waits for it the answer of a process manager's command, once; or says
    /// that its id was answered for another command meanwhile.
    pub(super) fn answer_on_behalf(
        &mut self,
        request: &Request<'_>,
        behalf: &Behalf,
        result: CommandResult,
    ) {
        let client = client_of(request, behalf);
        let result = match self.known(&client) {
            // A repeat stays one: the step may be remembered longer than the client's command.
            None => CommandResult { command_id: behalf.command_id, ..result },
            Some(Verdict::Refused(conflict)) => {
                let verdict = Verdict::Refused(conflict);
                command_result(self.settings, &client, verdict, result.version, self.now)
            }
            // What was answered is answered.
            Some(_) => return,
        };
        // A failure is tried again.
        if result.outcome != Outcome::Failed {
            self.tell(&client, &result);
        }
    }
}

fn client_of<'r>(request: &Request<'r>, behalf: &'r Behalf) -> Request<'r> {
    Request {
        record: None,
        aggregate_id: request.aggregate_id,
        stream: request.stream,
        command_id: behalf.command_id,
        content_hash: request.content_hash,
        metadata: Metadata {
            reply_to: behalf.reply_to.as_deref(),
            correlation_id: request.metadata.correlation_id,
            traceparent: request.metadata.traceparent,
            ..Metadata::default()
        },
        from_process_manager: false,
        on_behalf_of: None,
    }
}

/// What goes along with a command that is sent on for its client.
fn carried(metadata: &Metadata<'_>) -> Vec<(String, String)> {
    let named = [
        ("ce_time", metadata.time_text),
        ("actor", metadata.actor),
        ("ip_address", metadata.ip_address),
        ("traceparent", metadata.traceparent),
    ];
    let named = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let all = named.chain(metadata.free.iter().copied());
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
