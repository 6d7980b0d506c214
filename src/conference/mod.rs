//! Decides everything; does nothing: who speaks to whom, who offers, when to retry.
