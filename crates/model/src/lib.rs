//! What the kernel should do: predictions from an experiment and facts. Pure.
