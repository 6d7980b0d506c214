//! The hub's rooms (pure), and a socket for each end. `PROTOCOL.md` is the language.
