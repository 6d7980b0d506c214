//! The engine without a window: options in, lines out.
