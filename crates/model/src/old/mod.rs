//! The three machines that the engine replaces.

pub(crate) mod closing;
pub(crate) mod connecting;
pub(crate) mod course;
pub(crate) mod crash;
pub(crate) mod dead_path;
pub(crate) mod idle;
pub(crate) mod keepalive;
pub(crate) mod predict;
pub(crate) mod purpose;
pub(crate) mod retransmit;
pub(crate) mod scene;
pub(crate) mod sender;
pub(crate) mod sending;
pub(crate) mod slip;
pub(crate) mod way;
pub(crate) mod web_server;
pub(crate) mod window;
