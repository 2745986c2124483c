//! The room on the real kernel. All of it needs root, or a user namespace around it
//! (`unshare -Urnm`), and fails where it has neither.

mod answers;
mod delays;
mod networks;
mod support;
mod sysctls;
