//! Looks at a network namespace without changing it: packets, sockets, tracepoints.
