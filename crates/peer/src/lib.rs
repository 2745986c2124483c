//! The client and server programs: blocking sockets, no async runtime.
