//! Packets to picture and sound at the right moment.
