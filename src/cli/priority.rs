//! The option that lets the sessions of a run come first.

use crate::model::Command;

/// Whose turn the sessions are.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(super) struct PriorityArgs {
    /// Raise the sessions by one class: while your upload is full, one-to-one and many-to-many
    /// sessions come first, then one-to-many, then one-way.
    #[arg(long)]
    priority: bool,
}

impl PriorityArgs {
    /// Returns the command that raises the session that another command opens or joins.
    pub(super) fn command(self, request: &Command) -> Option<Command> {
        let session = request.session().filter(|_| self.priority)?.clone();
        Some(Command::SetPriority { session, raised: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{JoinTarget, SessionId};

    #[test]
    fn each_session_that_is_requested_is_raised_if_the_user_wants_it() {
        let session = SessionId::parse("hall").unwrap();
        let target = JoinTarget { session: session.clone(), hub: None };
        let join = Command::Join { target, wait: true };
        let raised = PriorityArgs { priority: true }.command(&join);
        assert_eq!(raised, Some(Command::SetPriority { session, raised: true }));
        assert_eq!(PriorityArgs::default().command(&join), None);
    }
}
