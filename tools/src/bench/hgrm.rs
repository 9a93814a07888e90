//! Latencies as files of HdrHistogram's tools: their percentile distribution, in milliseconds.

use std::fmt::Write as _;
use std::path::Path;

use hdrhistogram::Histogram;

use super::error::BenchError;
use super::load::Outcome;
use super::results::TICKS_PER_HALF;

/// The percentile distribution in the form of HdrHistogram's tools, in milliseconds.
fn percentile_text(histogram: &Histogram<u64>) -> String {
    let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut counted = 0;
    for point in histogram.iter_quantiles(TICKS_PER_HALF) {
        counted += point.count_since_last_iteration();
        let (value, quantile) = (
            point.value_iterated_to() as f64 / 1e6,
            point.quantile_iterated_to(),
        );
        let _ = match quantile < 1.0 {
            true => writeln!(
                out,
                "{value:12.3} {quantile:2.12} {counted:10} {:14.2}",
                1.0 / (1.0 - quantile)
            ),
            false => writeln!(out, "{value:12.3} {quantile:2.12} {counted:10}"),
        };
    }
    let _ = writeln!(
        out,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.mean() / 1e6,
        histogram.stdev() / 1e6,
        histogram.max() as f64 / 1e6,
        histogram.len(),
        histogram.buckets(),
        2048
    );
    out
}

/// Writes the distributions of a run beside each other: `NAME-produce.hgrm` and so on.
///
/// # Errors
/// Names the file that cannot be written.
pub(crate) fn write_histograms(directory: &Path, name: &str, outcome: &Outcome) -> Result<(), BenchError> {
    let latencies = &outcome.measured.total.latencies;
    for (kind, histogram) in [
        ("produce", &latencies.produce),
        ("end-to-end", &latencies.end_to_end),
        ("fetch", &latencies.fetch),
    ] {
        if !histogram.is_empty() {
            let safe: String = name
                .chars()
                .map(|c| if c.is_alphanumeric() { c } else { '-' })
                .collect();
            let path = directory.join(format!("{safe}-{kind}.hgrm"));
            let written = std::fs::write(&path, percentile_text(histogram));
            written.map_err(BenchError::system(path.display().to_string()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_file_is_that_of_hdrhistograms_tools() {
        let mut histogram = super::super::recorder::histogram();
        for n in 1..=1000u64 {
            histogram.record(n * 1_000_000).unwrap();
        }
        let text = percentile_text(&histogram);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "       Value     Percentile TotalCount 1/(1-Percentile)"
        );
        let last = lines.iter().rev().find(|line| !line.starts_with('#')).unwrap();
        let fields: Vec<f64> = last
            .split_whitespace()
            .map(|field| field.parse().unwrap())
            .collect();
        assert_eq!((fields[1], fields[2]), (1.0, 1000.0));
        assert!((fields[0] / 1000.0 - 1.0).abs() < 2e-3);
        assert!(lines.iter().any(|line| line.starts_with("#[Max     =")));
        let counts: Vec<u64> = lines[2..]
            .iter()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().nth(2).unwrap().parse().unwrap())
            .collect();
        assert!(counts.is_sorted() && counts.len() > 20);
    }
}
