//! Properties of each program that a host can run. Everything that depends on which
//! program it is asks here.

use crate::choice::Program;

/// How a program lives, as far as others must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// What it is called; `None`: by its part, client or server.
    pub name: Option<&'static str>,
    /// Whether it reports its calls and how far it is, and takes commands. Of others, the kernel
    /// alone tells: that they listen, are connected, have closed.
    pub reports: bool,
    /// Whether it accepts connections on whichever host it is, so that the other host's connects.
    pub accepts: bool,
    /// Whether it answers HTTP requests.
    pub is_web_server: bool,
    /// How it is asked to end.
    pub finish: Finish,
    /// Its executable, where it is not this one, and how to get it.
    pub install: Option<Install>,
}

/// How a program is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// By a command on its standard input.
    Command,
    /// SIGTERM.
    Terminate,
}

/// Where a program comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Install {
    /// The executable's name.
    pub executable: &'static str,
    /// What to do where there is none.
    pub remedy: &'static str,
}

impl Program {
    /// What must be known about it.
    pub const fn description(self) -> &'static Description {
        match self {
            Self::Halfopen => &Description {
                name: None,
                reports: true,
                accepts: false,
                is_web_server: false,
                finish: Finish::Command,
                install: None,
            },
            Self::Nginx => &Description {
                name: Some("nginx"),
                reports: false,
                accepts: true,
                is_web_server: true,
                finish: Finish::Terminate,
                install: Some(Install {
                    executable: "nginx",
                    remedy: "apt-get install nginx-light",
                }),
            },
            Self::Command => &Description {
                name: None,
                reports: false,
                accepts: false,
                is_web_server: false,
                finish: Finish::Terminate,
                install: None,
            },
        }
    }
}
