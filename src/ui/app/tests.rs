//! Tests of the whole window over literal snapshots.
