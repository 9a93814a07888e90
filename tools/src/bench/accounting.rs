//! What processes use: CPU, context switches, memory, bytes written. The generator's own, and a broker's with all its
//! children, from `/proc` and, where one can be made, a control group of version 2.

use std::path::{Path, PathBuf};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Seconds of CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cpu {
    pub(crate) user_s: f64,
    pub(crate) system_s: f64,
}

impl Cpu {
    pub(crate) fn total_s(&self) -> f64 {
        self.user_s + self.system_s
    }

    pub(crate) fn since(&self, earlier: &Cpu) -> Cpu {
        Cpu {
            user_s: (self.user_s - earlier.user_s).max(0.0),
            system_s: (self.system_s - earlier.system_s).max(0.0),
        }
    }
}

/// This process's own CPU: the sum to the nanosecond, its split at the ticks of the kernel's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GeneratorCpu {
    pub(crate) total_s: f64,
    split: Cpu,
}

impl GeneratorCpu {
    pub(crate) fn now() -> GeneratorCpu {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let split = std::fs::read_to_string("/proc/self/stat").ok();
        GeneratorCpu {
            total_s: used.tv_sec as f64 + used.tv_nsec as f64 / 1e9,
            split: split.and_then(|text| cpu_of_stat(&text)).unwrap_or_default(),
        }
    }

    /// What was used since.
    pub(crate) fn until_now(&self) -> GeneratorCpu {
        let now = GeneratorCpu::now();
        GeneratorCpu {
            total_s: now.total_s - self.total_s,
            split: now.split.since(&self.split),
        }
    }

    /// In user and kernel mode, adding up to the exact sum.
    pub(crate) fn cpu(&self) -> Cpu {
        let ticks = self.split.total_s();
        let user = if ticks > 0.0 {
            self.split.user_s / ticks
        } else {
            0.5
        };
        Cpu {
            user_s: self.total_s * user,
            system_s: self.total_s * (1.0 - user),
        }
    }
}

/// The fields of `/proc/PID/stat` behind the name, which may hold anything.
fn fields_of_stat(text: &str) -> Option<Vec<&str>> {
    Some(text.rsplit_once(')')?.1.split_whitespace().collect())
}

/// Clock ticks of `/proc` are hundredths of a second on Linux.
fn cpu_of_stat(text: &str) -> Option<Cpu> {
    let fields = fields_of_stat(text)?;
    let seconds = |at: usize| Some(fields.get(at)?.parse::<f64>().ok()? / 100.0);
    Some(Cpu {
        user_s: seconds(11)?,
        system_s: seconds(12)?,
    })
}

/// What a process and all its descendants have used since they began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) cpu: Cpu,
    /// Of threads that are alive.
    pub(crate) voluntary_switches: u64,
    pub(crate) involuntary_switches: u64,
    /// Sent towards the disk, which happens when pages become dirty.
    pub(crate) written_bytes: u64,
    /// Now.
    pub(crate) rss_bytes: u64,
}

impl Usage {
    /// What was used after `earlier`; memory as it is.
    pub(crate) fn since(&self, earlier: &Usage) -> Usage {
        Usage {
            cpu: self.cpu.since(&earlier.cpu),
            voluntary_switches: self.voluntary_switches.saturating_sub(earlier.voluntary_switches),
            involuntary_switches: self
                .involuntary_switches
                .saturating_sub(earlier.involuntary_switches),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            rss_bytes: self.rss_bytes,
        }
    }
}

/// A process and its descendants.
#[derive(Debug)]
pub(crate) struct ProcessTree {
    pid: u32,
    /// Where a group could be made: it counts CPU to the microsecond, also of processes that are gone.
    group: Option<ControlGroup>,
}

impl ProcessTree {
    /// Begins to account a process that was just started.
    pub(crate) fn of(pid: u32) -> ProcessTree {
        let group = ControlGroup::around(pid);
        ProcessTree { pid, group }
    }

    /// How CPU is counted.
    pub(crate) fn means(&self) -> &'static str {
        if self.group.is_some() {
            "cgroup v2"
        } else {
            "/proc"
        }
    }

    /// The process and all that descend from it.
    fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.pid];
        let mut at = 0;
        while let Some(&pid) = pids.get(at) {
            at += 1;
            for task in tasks(pid) {
                let children = read(&task.join("children"));
                pids.extend(
                    children
                        .split_whitespace()
                        .filter_map(|child| child.parse::<u32>().ok()),
                );
            }
        }
        pids
    }

    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for pid in self.pids() {
            let process = PathBuf::from(format!("/proc/{pid}"));
            if let Some(cpu) = cpu_with_children(&read(&process.join("stat"))) {
                usage.cpu.user_s += cpu.user_s;
                usage.cpu.system_s += cpu.system_s;
            }
            for task in tasks(pid) {
                let status = read(&task.join("status"));
                usage.voluntary_switches += field(&status, "voluntary_ctxt_switches:");
                usage.involuntary_switches += field(&status, "nonvoluntary_ctxt_switches:");
            }
            usage.rss_bytes += field(&read(&process.join("status")), "VmRSS:") * 1024;
            usage.written_bytes += field(&read(&process.join("io")), "write_bytes:");
        }
        if let Some(cpu) = self.group.as_ref().and_then(ControlGroup::cpu) {
            usage.cpu = cpu;
        }
        usage
    }
}

/// Whoever ended meanwhile has nothing to say.
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn tasks(pid: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task"));
    entries.map_or(Vec::new(), |entries| {
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
    })
}

/// The number behind a name at the beginning of a line; 0 when there is none.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// With that of children that are gone.
fn cpu_with_children(stat: &str) -> Option<Cpu> {
    let own = cpu_of_stat(stat)?;
    let fields = fields_of_stat(stat)?;
    let seconds = |at: usize| Some(fields.get(at)?.parse::<f64>().ok()? / 100.0);
    Some(Cpu {
        user_s: own.user_s + seconds(13)?,
        system_s: own.system_s + seconds(14)?,
    })
}

/// A control group of version 2, beside that of this process. Dropping it takes it away, once its processes are gone.
#[derive(Debug)]
struct ControlGroup(PathBuf);

impl ControlGroup {
    /// `None` where this process may not make one.
    fn around(pid: u32) -> Option<ControlGroup> {
        let own = read(Path::new("/proc/self/cgroup"));
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let root = roots
            .into_iter()
            .find(|root| root.join("cgroup.controllers").exists())?;
        let name = format!("milena-bench-{}-{pid}", std::process::id());
        let path = root.join(own).join(name);
        std::fs::create_dir(&path).ok()?;
        let group = ControlGroup(path);
        std::fs::write(group.0.join("cgroup.procs"), pid.to_string()).ok()?;
        group.cpu()?;
        Some(group)
    }

    fn cpu(&self) -> Option<Cpu> {
        let text = std::fs::read_to_string(self.0.join("cpu.stat")).ok()?;
        let seconds = |name| field(&text, name) as f64 / 1e6;
        text.contains("user_usec").then(|| Cpu {
            user_s: seconds("user_usec"),
            system_s: seconds("system_usec"),
        })
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // A process that outlives its parent keeps the group; it is empty of use, not of harm.
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_shifts_no_field() {
        let text = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 3 4 20 0 1 0 5 0 0";
        assert_eq!(
            cpu_of_stat(text),
            Some(Cpu {
                user_s: 2.5,
                system_s: 1.5
            })
        );
        assert_eq!(cpu_of_stat("nonsense"), None);
    }

    #[test]
    fn children_that_are_gone_count_and_fields_are_found_by_name() {
        let text = "7 (x) S 1 7 7 0 -1 0 0 0 0 0 250 150 100 50 20 0 1 0 5 0 0";
        let cpu = cpu_with_children(text).unwrap();
        assert_eq!((cpu.user_s, cpu.system_s), (3.5, 2.0));
        let status = "VmRSS:\t  512 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t9\n";
        assert_eq!(field(status, "VmRSS:"), 512);
        assert_eq!(
            (
                field(status, "voluntary_ctxt_switches:"),
                field(status, "nonvoluntary_ctxt_switches:")
            ),
            (7, 9)
        );
        assert_eq!(field(status, "VmHWM:"), 0);
    }

    #[test]
    fn a_tree_holds_the_children_of_its_children() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sh -c 'read x'; true"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let tree = ProcessTree::of(child.id());
        let started = std::time::Instant::now();
        while tree.pids().len() < 2 {
            assert!(started.elapsed().as_secs() < 10, "no grandchild is seen");
            std::thread::yield_now();
        }
        assert!(tree.usage().rss_bytes > 100_000);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(tree.usage().rss_bytes, 0);
    }

    #[test]
    fn the_generator_knows_what_it_used() {
        let before = GeneratorCpu::now();
        let mut sum = 0u64;
        while before.until_now().total_s < 0.005 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        let used = before.until_now();
        assert!(used.total_s >= 0.005);
        assert!((used.cpu().total_s() - used.total_s).abs() < 1e-9);
    }
}
