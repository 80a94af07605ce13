//! How busy this machine is, sampled rarely: looking is not free, and nobody needs it to the second.

use std::time::Duration;

use sysinfo::{MemoryRefreshKind, System};
use tokio::time::Instant;

/// At most one sample in this time.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// One sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// In percent of all cores.
    pub load_percent: u32,
    /// Of the machine, in bytes.
    pub memory_bytes: u64,
    /// Not in use, in bytes.
    pub memory_free_bytes: u64,
}

/// Samples on demand.
#[derive(Debug)]
pub struct LoadSampler {
    /// `None` where the system does not say anything.
    system: Option<System>,
    last: Option<(Instant, Load)>,
}

impl LoadSampler {
    /// Nothing sampled yet.
    pub fn new() -> Self {
        Self { system: System::new().ok(), last: None }
    }

    /// The last sample, or a new one where that is old.
    pub fn sample(&mut self) -> Load {
        let now = Instant::now();
        if let Some((at, load)) = self.last
            && now.duration_since(at) < SAMPLE_INTERVAL
        {
            return load;
        }
        let load = self.system.as_mut().map(look).unwrap_or_default();
        self.last = Some((now, load));
        load
    }
}

fn look(system: &mut System) -> Load {
    system.refresh_cpu_usage();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=100 first")]
    let load_percent = system.global_cpu_usage().clamp(0.0, 100.0) as u32;
    Load { load_percent, memory_bytes: system.total_memory(), memory_free_bytes: system.available_memory() }
}

impl Default for LoadSampler {
    fn default() -> Self {
        Self::new()
    }
}

/// Memory of the machine in bytes; 0 where the system does not say.
pub fn total_memory_bytes() -> u64 {
    let Ok(mut system) = System::new() else { return 0 };
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    system.total_memory()
}
