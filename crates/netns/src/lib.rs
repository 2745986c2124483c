//! A nameless network namespace held by a file descriptor.
