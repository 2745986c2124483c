//! The virtual kernel.

use super::Setting;
use crate::VirtualKernel;

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "kernel",
        about: "In virtual time: the version of the kernel, as `--kernel` says it.",
        default: None,
        example: "6.1",
        accepts: "a version of two numbers, such as `6.12`",
        set: |p, text| version(text).map(|version| p.kernel.version = Some(version)),
        get: |p| p.kernel.version.clone(),
    },
    Setting {
        key: "hz",
        about: "In virtual time: the kernel's timer interrupts a second, as `--hz` says it.",
        default: None,
        example: "1000",
        accepts: "`100`, `250`, `300` or `1000`",
        set: |p, text| hz(text).map(|hz| p.kernel.hz = Some(hz)),
        get: |p| p.kernel.hz.map(|hz| hz.to_string()),
    },
];

fn version(text: &str) -> Result<String, String> {
    let mut numbers = text.split('.').map(|number| number.parse::<u16>().is_ok());
    let is_version =
        (numbers.next(), numbers.next(), numbers.next()) == (Some(true), Some(true), None);
    if is_version { Ok(text.into()) } else { Err(format!("`{text}` is not one")) }
}

fn hz(text: &str) -> Result<u32, String> {
    let known = text.parse().ok().filter(|hz| VirtualKernel::HZ.contains(hz));
    known.ok_or_else(|| format!("`{text}` is not one of them"))
}
