//! Who holds a network namespace, as far as /proc tells.

use std::fs;
use std::path::Path;

/// A clause for each process inside the namespace of this inode number, and for each that has a
/// descriptor of it.
pub(crate) fn of(inode: u64) -> Vec<String> {
    let wanted = format!("net:[{inode}]");
    let is_wanted =
        |link: &Path| fs::read_link(link).is_ok_and(|target| target.as_os_str() == &*wanted);
    let mut found = Vec::new();
    for process in entries(Path::new("/proc")) {
        let Some(pid) = process.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok())
        else {
            continue;
        };
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        let name = name.trim();
        if entries(&process.join("task")).iter().any(|task| is_wanted(&task.join("ns/net"))) {
            found.push(format!("process {pid} ({name}) is in it"));
        }
        if entries(&process.join("fd")).iter().any(|fd| is_wanted(fd)) {
            found.push(format!("process {pid} ({name}) has a descriptor of it"));
        }
    }
    found
}

fn entries(directory: &Path) -> Vec<std::path::PathBuf> {
    let Ok(listing) = fs::read_dir(directory) else { return Vec::new() };
    listing.filter_map(|entry| Some(entry.ok()?.path())).collect()
}
