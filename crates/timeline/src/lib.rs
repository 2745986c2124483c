//! What happened: one merged, source-tagged, monotonic event log. Pure.
