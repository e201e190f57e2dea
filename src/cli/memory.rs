//! What the system tells of memory; nothing where it tells nothing.

use std::path::Path;

/// The most memory that this process has held so far.
pub(super) fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    kib(&status, "VmHWM:")
}

/// What a process can still take without anything being swapped out or ended: what the machine has, or what
/// the control groups of this process leave of it.
pub(super) fn available() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let machine = kib(&read(Path::new("/proc/meminfo"))?, "MemAvailable:")?;
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    Some(machine.min(left_by_groups(&groups, &read).unwrap_or(u64::MAX)))
}

/// A line such as `MemAvailable:   12345 kB`, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// The least that one of the groups in `/proc/self/cgroup`, or one that they lie in, leaves. `None` where no
/// group has a limit.
fn left_by_groups(groups: &str, read: &impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let found = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?);
        // Version 2 names no controller; what version 1 has for memory lies in a folder of its own.
        let (root, limit, used) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max", "memory.current"),
            names if names.split(',').any(|name| name == "memory") => (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            ),
            _ => return None,
        };
        let left = Path::new(group).ancestors().filter_map(|group| {
            let folder = Path::new(root).join(group.strip_prefix("/").ok()?);
            let number = |name: &str| read(&folder.join(name))?.trim().parse::<u64>().ok();
            // `max` is no number: there is no limit.
            let limit = number(limit)?;
            // Pages of files count as used and go when memory is wanted.
            let files = read(&folder.join("memory.stat")).map_or(0, |stat| {
                let inactive = stat.lines().find_map(|line| {
                    let (name, bytes) = line.split_once(' ')?;
                    let is_file = ["inactive_file", "total_inactive_file"].contains(&name);
                    is_file.then(|| bytes.trim().parse::<u64>().ok())?
                });
                inactive.unwrap_or(0)
            });
            let used = number(used).unwrap_or(0).saturating_sub(files);
            Some(limit.saturating_sub(used))
        });
        left.min()
    });
    found.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_a_number_of_bytes() {
        let text =
            "MemTotal:       24000000 kB\nMemAvailable:    1234 kB\nHugePages_Total:       0\n";
        assert_eq!(kib(text, "MemAvailable:"), Some(1234 << 10));
        assert_eq!(kib(text, "HugePages_Total:"), None);
        assert_eq!(kib(text, "VmHWM:"), None);
        assert_eq!(kib("MemAvailable: lots kB", "MemAvailable:"), None);
    }

    fn left(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        left_by_groups(groups, &|path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_narrowest_group_counts() {
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/b/memory.current", "10\n"),
            ("/sys/fs/cgroup/a/memory.max", "1000\n"),
            ("/sys/fs/cgroup/a/memory.current", "400\n"),
            (
                "/sys/fs/cgroup/a/memory.stat",
                "anon 3\ninactive_file 100\n",
            ),
        ];
        assert_eq!(left("0::/a/b\n", &files), Some(700));
        assert_eq!(left("0::/\n", &files), None);
        let first = [
            ("/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "500"),
            ("/sys/fs/cgroup/memory/c/memory.usage_in_bytes", "600"),
        ];
        assert_eq!(left("5:cpu:/c\n4:memory:/c\n", &first), Some(0));
        assert_eq!(left("5:cpu:/c\n", &first), None);
        assert_eq!(left("no line of it\n", &first), None);
    }

    #[test]
    fn a_machine_with_proc_says_both() {
        if Path::new("/proc/meminfo").exists() {
            assert!(available().is_some_and(|bytes| bytes > 0));
            assert!(peak().is_some_and(|bytes| bytes > 1 << 20));
        }
    }
}
