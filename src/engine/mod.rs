//! The one loop that owns the core: inputs, core, effects.
