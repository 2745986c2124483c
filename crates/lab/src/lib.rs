//! Builds the networks, sets sysctls, injects the faults.
