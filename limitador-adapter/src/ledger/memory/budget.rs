//! The default memory limit for counters: a fraction of the container's or machine's memory.

use std::fs;
use std::path::Path;

/// Counters get a third of the memory. The rest is for reservations, settled ids, connections, and memory
/// that the allocator cannot return.
const PART: u64 = 3;

/// The memory size to assume if it cannot be read.
const UNKNOWN: u64 = 1 << 30;

pub fn of_this_machine() -> u64 {
    of_memory(memory(Path::new("/")))
}

fn of_memory(memory: Option<u64>) -> u64 {
    memory.unwrap_or(UNKNOWN) / PART
}

/// Returns the lowest limit of the control groups (version 2, then 1) and the machine.
fn memory(root: &Path) -> Option<u64> {
    let number = |path: &str| fs::read_to_string(root.join(path)).ok()?.trim().parse::<u64>().ok();
    // Without a limit, version 2 reports "max" and version 1 a number larger than any memory.
    let limits = [number("sys/fs/cgroup/memory.max"), number("sys/fs/cgroup/memory/memory.limit_in_bytes")];
    limits.into_iter().chain([machine(root)]).flatten().filter(|bytes| *bytes > 0).min()
}

fn machine(root: &Path) -> Option<u64> {
    let told = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = told.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Parses a number of bytes in Kubernetes notation: 1048576, 64Mi, 2Gi, 500M.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => 0_u64,
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).filter(|_| unit > 0);
    bytes.ok_or_else(|| "must be a number of bytes, such as 268435456, 256Mi or 2Gi".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_smallest_of_the_container_s_limit_and_the_machine_s_memory_counts() {
        let machine = ("proc/meminfo", "MemFree: 1 kB\nMemTotal:       16384000 kB\n");
        let v2 = "sys/fs/cgroup/memory.max";
        let v1 = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        for (files, wanted) in [
            (&[machine, (v2, "1073741824\n")][..], Some(1 << 30)),
            (&[machine, (v1, "1073741824\n")], Some(1 << 30)),
            (&[machine, (v2, "max\n")], Some(16_384_000 * 1024)),
            (&[machine, (v1, "9223372036854771712\n")], Some(16_384_000 * 1024)),
            (&[machine], Some(16_384_000 * 1024)),
            (&[], None),
        ] {
            assert_eq!(memory(root(files).path()), wanted, "{files:?}");
        }
        assert_eq!(of_memory(Some(3 << 30)), 1 << 30);
        assert!(of_this_machine() > 0);
    }

    #[test]
    fn bytes_are_read_as_kubernetes_writes_them() {
        for (text, bytes) in
            [("0", 0), ("1048576", 1 << 20), ("64Mi", 64 << 20), ("2Gi", 2 << 30), ("5k", 5_000)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "Mi", "1.5Gi", "-1", "1 Gi", "1TB", "99999999999Gi"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
