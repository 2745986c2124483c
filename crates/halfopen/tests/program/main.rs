//! Tests of the program as a whole: the real executable, on real namespaces.

mod advise;
mod audit;
mod audit_elsewhere;
mod command_line;
mod common;
mod examples;
mod exec;
mod guide;
mod machines;
mod nothing_left;
mod orders;
mod ordinary;
mod parallel;
mod privileges;
mod proxied;
mod results;
mod schemas;
mod snippets;
mod survivor;
mod trials;
mod virtual_time;
