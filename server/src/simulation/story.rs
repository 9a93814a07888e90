//! The story of a run: what the brokers log and what happens to them, with the time of the simulation.

use std::fmt;

use tokio::time::Instant;
use tracing::Level;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Set to anything, it has every run of this process told on standard output.
const VARIABLE: &str = "MILENA_SIMULATION_STORY";

/// The target of what happens to brokers rather than in them.
pub(super) const EVENTS: &str = "simulation";

/// Seconds since the run began.
struct Since(Instant);

impl FormatTime for Since {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:10.6}", self.0.elapsed().as_secs_f64())
    }
}

/// Tells the run that begins now, until the guard goes.
pub(super) fn tell() -> Option<DefaultGuard> {
    std::env::var_os(VARIABLE)?;
    let subscriber = tracing_subscriber::fmt()
        .with_timer(Since(Instant::now()))
        .with_max_level(Level::TRACE)
        .with_ansi(false)
        .finish();
    Some(tracing::subscriber::set_default(subscriber))
}
