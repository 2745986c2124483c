//! The virtual kernel.

use super::Setting;
use crate::VirtualKernel;

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "kernel",
        about: "In virtual time: the version of the kernel, as `--kernel` says it.",
        default: None,
        example: "6.1",
        accepts: "a version of two numbers from `5.12` on, such as `6.12`",
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

/// The oldest version that the model is of, and that halfopen runs on.
const OLDEST: [u16; 2] = [5, 12];

fn version(text: &str) -> Result<String, String> {
    let numbers: Result<Vec<u16>, _> = text.split('.').map(str::parse).collect();
    match numbers.ok().and_then(|numbers| <[u16; 2]>::try_from(numbers).ok()) {
        Some(version) if version >= OLDEST => Ok(text.into()),
        Some(_) => Err(format!("Linux {text} is too old")),
        None => Err(format!("`{text}` is not a version")),
    }
}

fn hz(text: &str) -> Result<u32, String> {
    let known = text.parse().ok().filter(|hz| VirtualKernel::HZ.contains(hz));
    known.ok_or_else(|| format!("`{text}` is unknown"))
}
