//! How much memory the process may take, and who gets how much of it.
//!
//! The state of streams and the queries are what grows with the data, so they get shares of it. Doors, caches and brokers
//! have bounds of their own, which do not depend on it and are some 200 MiB under load.

use std::fmt;
use std::str::FromStr;

/// The least that is any use.
const LEAST: u64 = 256 << 20;
/// What one query may take, however much there is.
const MOST_FOR_A_QUERY: usize = 256 << 20;
/// Where the limit of a container is written; the second is that of older systems.
const LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// A number of bytes, such as `2GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory(u64);

impl Memory {
    /// A quarter of what the machine, or the container, has.
    pub fn of_machine() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).ok();
        let total = text("/proc/meminfo").and_then(|text| bytes_in(&text, "MemTotal:")).unwrap_or(4 << 30);
        let limits = LIMITS.iter().filter_map(|path| text(path)?.trim().parse::<u64>().ok());
        Self((limits.fold(total, u64::min) / 4).max(LEAST))
    }

    /// What the state of streams may take. A snapshot is laid out beside it, and is smaller.
    pub fn for_state(self) -> usize {
        usize::try_from(self.0 / 2).unwrap_or(usize::MAX)
    }

    /// What one query may take, and all of them together.
    pub fn for_queries(self) -> (usize, usize) {
        let all = usize::try_from(self.0 / 4).unwrap_or(usize::MAX);
        (all.min(MOST_FOR_A_QUERY), all)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}MiB", self.0 >> 20)
    }
}

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // Compose files set variables to nothing where there is nothing to set.
        if text.is_empty() {
            return Ok(Self::of_machine());
        }
        let wrong = || format!("`{text}` is no amount of memory: write it as 512MiB or 2GiB");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let unit: u64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "kb" => 1_000,
            "m" | "mib" => 1 << 20,
            "mb" => 1_000_000,
            "g" | "gib" => 1 << 30,
            "gb" => 1_000_000_000,
            _ => return Err(wrong()),
        };
        let bytes = text[..digits].parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)?;
        if bytes < LEAST {
            return Err(format!("{text} is too little: the least is {}", Self(LEAST)));
        }
        Ok(Self(bytes))
    }
}

/// The bytes in a line of the system's accounts, such as `MemTotal:       24689764 kB`.
pub fn bytes_in(account: &str, line: &str) -> Option<u64> {
    let kib = account.lines().find_map(|found| found.strip_prefix(line))?;
    kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_units() {
        let bytes = |text: &str| text.parse::<Memory>().map(|memory| memory.0);
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        assert_eq!(bytes("512 MiB"), Ok(512 << 20));
        assert_eq!(bytes("1gb"), Ok(1_000_000_000));
        assert_eq!(bytes("536870912"), Ok(512 << 20));
        assert!(bytes("1").is_err_and(|error| error.contains("256MiB")));
        for wrong in ["much", "1.5GiB", "-1", "9999999999999GiB", "2 TiB", "GiB"] {
            assert!(bytes(wrong).is_err_and(|error| error.contains("no amount")), "{wrong}");
        }
        assert!(bytes("").is_ok_and(|bytes| bytes >= LEAST));
        assert_eq!(bytes_in("MemTotal:       24689764 kB\nMemFree: 1 kB\n", "MemTotal:"), Some(24_689_764 << 10));
    }
}
