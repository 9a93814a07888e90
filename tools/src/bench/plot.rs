//! `milena bench plot`: results as one HTML page that needs nothing else: charts as SVG, tables, light and dark.
//!
//! Runs of the same scenario share charts; each file, or each subject of a comparison, has its colour in all of them.

mod chart;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::compare::document::{self, ComparisonDocument};
use super::error::BenchError;
use super::quantity::{brief, brief_time};
use super::results::{Results, Run, SecondRow};
use chart::{Chart, Line, Scale, escape};

#[derive(Debug, Args)]
pub(crate) struct PlotArgs {
    /// Results (--json of a run) or comparisons (--json of compare); name=file gives one a name of its own.
    #[arg(required = true, value_name = "result")]
    results: Vec<String>,
    /// Where to write; standard output if absent.
    #[arg(long, short, value_name = "file")]
    output: Option<PathBuf>,
}

/// What has one colour.
#[derive(Clone, Debug)]
struct Series {
    label: String,
    machine: String,
    runs: Vec<Run>,
}

/// Writes the page.
///
/// # Errors
/// Names the file that is none of ours or cannot be written.
pub(crate) fn run(arguments: &PlotArgs) -> Result<(), BenchError> {
    let (mut series, mut comparisons) = (Vec::new(), Vec::new());
    for word in &arguments.results {
        let (more, comparison) = read(word).map_err(BenchError::Usage)?;
        series.extend(more);
        comparisons.extend(comparison);
    }
    let page = page(&series, &comparisons);
    match &arguments.output {
        Some(path) => std::fs::write(path, page).map_err(BenchError::system(path.display().to_string())),
        None => super::print(&page),
    }
}

/// The series of one file, and the comparison if it is one.
fn read(word: &str) -> Result<(Vec<Series>, Option<ComparisonDocument>), String> {
    let (label, path) = match word.split_once('=') {
        Some((label, path)) if !Path::new(word).exists() => (label.to_owned(), Path::new(path)),
        _ => {
            let path = Path::new(word);
            let stem = path.file_stem().unwrap_or(path.as_os_str());
            (stem.to_string_lossy().into_owned(), path)
        }
    };
    if schema_of(path)? == document::SCHEMA {
        let comparison = ComparisonDocument::read(path)?;
        let machine = comparison.machine.to_string();
        let of = |subject: &String| {
            let runs = comparison.rounds.iter().filter(|round| round.subject == *subject);
            Series {
                label: subject.clone(),
                machine: machine.clone(),
                runs: runs.map(|round| round.run.clone()).collect(),
            }
        };
        return Ok((comparison.subjects.iter().map(of).collect(), Some(comparison)));
    }
    let results = Results::read(path)?;
    let series = Series {
        label,
        machine: results.machine.to_string(),
        runs: results.runs,
    };
    Ok((vec![series], None))
}

/// Which of our documents a file is.
fn schema_of(path: &Path) -> Result<String, String> {
    #[derive(serde::Deserialize)]
    struct Document {
        schema: String,
    }
    let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let document: Result<Document, _> = serde_json::from_slice(&text);
    document.map_or_else(
        |error| Err(format!("{}: {error}", path.display())),
        |document| Ok(document.schema),
    )
}

const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#57606a;--grid:#d8dee4;
--c0:#0b62c4;--c1:#c2410c;--c2:#15803d;--c3:#7e22ce;--c4:#a16207;--c5:#be185d;--c6:#0e7490;--c7:#4b5563}
@media (prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e6e9ed;--dim:#9aa4af;--grid:#333a42;
--c0:#6cb0ff;--c1:#ff9f63;--c2:#5fd38d;--c3:#c99bff;--c4:#e5c04b;--c5:#ff8fc0;--c6:#5fd0e5;--c7:#b5bdc7}}
body{background:var(--bg);color:var(--fg);font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .3rem}h2{font-size:1.15rem;margin:2.2rem 0 .2rem}p{margin:.2rem 0;color:var(--dim)}
.legend span{margin-right:1.4rem;white-space:nowrap;color:var(--fg)}.legend i{display:inline-block;width:1.4rem;height:.25rem;
vertical-align:middle;margin-right:.45rem;border-radius:2px}
.charts{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:.6rem 0;flex:1 1 30rem;max-width:37rem}
figcaption{font-weight:600;font-size:.9rem;margin-bottom:.2rem}svg{width:100%;height:auto;display:block}
.grid{stroke:var(--grid);stroke-width:1;fill:none}.tick,.axis{fill:var(--dim);font-size:11.5px}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.dashed{stroke-dasharray:5 4}
table{border-collapse:collapse;font-size:.88rem;margin:.6rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.22rem .7rem;text-align:right;border-bottom:1px solid var(--grid)}th:first-child,td:first-child{text-align:left}
th{color:var(--dim);font-weight:600}";

/// The whole page.
fn page(series: &[Series], comparisons: &[ComparisonDocument]) -> String {
    let mut out = String::from("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>");
    out += "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/><title>milena bench</title><style>";
    out += STYLE;
    for color in 0..8 {
        let _ = write!(
            out,
            "\n.line.c{color}{{stroke:var(--c{color})}}.dot.c{color}{{fill:var(--c{color})}}\
             i.c{color}{{background:var(--c{color})}}"
        );
    }
    out += "</style></head><body>\n<h1>milena bench</h1>\n";
    let mut machines: Vec<&str> = series.iter().map(|one| one.machine.as_str()).collect();
    machines.dedup();
    for machine in machines {
        let _ = writeln!(out, "<p>{}</p>", escape(machine));
    }
    out += "<p class=\"legend\">";
    for (color, one) in series.iter().enumerate() {
        let _ = write!(
            out,
            "<span><i class=\"c{}\"></i>{}</span>",
            color % 8,
            escape(&one.label)
        );
    }
    out += "</p>\n";
    let mut names: Vec<&str> = Vec::new();
    for run in series.iter().flat_map(|one| &one.runs) {
        if !names.contains(&run.name.as_str()) {
            names.push(&run.name);
        }
    }
    for name in names {
        out += &section(name, series);
        comparisons
            .iter()
            .for_each(|comparison| out += &costs(name, comparison));
    }
    out += "</body></html>\n";
    out
}

/// One scenario: its charts and its table.
fn section(name: &str, series: &[Series]) -> String {
    let all: Vec<(usize, &str, &Run)> = series
        .iter()
        .enumerate()
        .flat_map(|(color, one)| one.runs.iter().map(move |run| (color, one.label.as_str(), run)))
        .filter(|(_, _, run)| run.name == name)
        .collect();
    let about = all
        .iter()
        .map(|(_, _, run)| run.about.as_str())
        .find(|about| !about.is_empty());
    let mut out = format!(
        "<h2>{}</h2>\n<p>{}</p>\n<div class=\"charts\">\n",
        escape(name),
        escape(about.unwrap_or(""))
    );
    for kind in ["produce", "end to end", "fetch"] {
        let lines: Vec<Line> = all
            .iter()
            .filter_map(|(color, _, run)| percentiles(*color, run, kind))
            .collect();
        // Fetches wait on purpose; they count where nothing else does.
        let others = all
            .iter()
            .any(|(_, _, run)| run.latencies().any(|(other, _)| other != "fetch"));
        if lines.is_empty() || (kind == "fetch" && others) {
            continue;
        }
        let title = match kind {
            "produce" => "Latency of acknowledgements by percentile",
            "end to end" => "Latency from producer to consumer by percentile",
            _ => "Latency of fetches by percentile",
        };
        out += &Chart {
            title: title.to_owned(),
            x: (Scale::Percentile, "percentile"),
            y: (Scale::Log, "latency"),
            label: brief_time,
            lines,
        }
        .svg();
    }
    out += &Chart {
        title: "Throughput over time (dashed: consumed beside produced)".to_owned(),
        x: (Scale::Linear, "seconds"),
        y: (Scale::Linear, "MB/s"),
        label: brief,
        lines: all
            .iter()
            .flat_map(|(color, _, run)| throughput(*color, run))
            .collect(),
    }
    .svg();
    let p99 = |(color, _, run): &(usize, &str, &Run)| Line {
        color: *color,
        is_dashed: false,
        points: whole_seconds(run)
            .filter(|(row, _)| row.max > 0.0)
            .map(|(row, _)| [row.until, row.p99])
            .collect(),
    };
    out += &Chart {
        title: "99th percentile over time".to_owned(),
        x: (Scale::Linear, "seconds"),
        y: (Scale::Log, "p99 of each second"),
        label: brief_time,
        lines: all.iter().map(p99).collect(),
    }
    .svg();
    out += "</div>\n";
    out += &table(&all);
    out
}

/// What a comparison says of a scenario, row by row.
fn costs(scenario: &str, comparison: &ComparisonDocument) -> String {
    let rows: Vec<_> = comparison
        .rows
        .iter()
        .filter(|row| row.scenario == scenario)
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut out = String::from("<table><tr><th>median (smallest to largest round)</th>");
    for subject in &comparison.subjects {
        let _ = write!(out, "<th>{}</th>", escape(subject));
    }
    for other in &comparison.subjects[1..] {
        let _ = write!(
            out,
            "<th>{} to {}</th>",
            escape(&comparison.subjects[0]),
            escape(other)
        );
    }
    out += "</tr>\n";
    for row in rows {
        let (spreads, verdicts) = comparison.cells(row);
        let _ = write!(out, "<tr><td>{}</td>", escape(&row.metric));
        for cell in spreads.iter().chain(&verdicts) {
            let _ = write!(out, "<td>{}</td>", escape(cell));
        }
        out += "</tr>\n";
    }
    out += "</table>\n";
    out
}

fn percentiles(color: usize, run: &Run, kind: &str) -> Option<Line> {
    let (_, latency) = run.latencies().find(|(name, _)| *name == kind)?;
    Some(Line {
        color,
        is_dashed: false,
        points: latency.distribution.clone(),
    })
}

/// The seconds of a run with their lengths; a last one that is much shorter says nothing, unless it is the only one.
fn whole_seconds(run: &Run) -> impl Iterator<Item = (&SecondRow, f64)> {
    let mut since = 0.0;
    let rows = run.seconds.iter().map(move |row| {
        let length = row.until - since;
        since = row.until;
        (row, length.max(1e-3))
    });
    rows.filter(|(_, length)| *length >= 0.5 || run.seconds.len() == 1)
}

/// MB/s of each second.
fn throughput(color: usize, run: &Run) -> Vec<Line> {
    let both = run.produced.is_some() && run.consumed.is_some();
    let line = |is_dashed, bytes: fn(&SecondRow) -> u64| Line {
        color,
        is_dashed,
        points: whole_seconds(run)
            .map(|(row, length)| [row.until, bytes(row) as f64 / 1e6 / length])
            .collect(),
    };
    let produced = run.produced.map(|_| line(false, |row| row.produced_bytes));
    let consumed = run.consumed.map(|_| line(both, |row| row.consumed_bytes));
    produced.into_iter().chain(consumed).collect()
}

fn table(all: &[(usize, &str, &Run)]) -> String {
    let mut out = String::from(
        "<table><tr><th>run</th><th>records/s</th><th>MB/s</th><th>latency of</th><th>p50</th><th>p99</th>\
         <th>p99.9</th><th>p99.99</th><th>max</th><th>generator, µs a record</th></tr>\n",
    );
    for (_, label, run) in all {
        let throughput = match run.produced.or(run.consumed) {
            Some(t) => [brief(t.records_per_s), brief(t.mb_per_s)],
            None => Default::default(),
        };
        let rows: Vec<_> = run.latencies().collect();
        let shown = if rows.len() > 1 {
            rows.into_iter().filter(|(name, _)| *name != "fetch").collect()
        } else {
            rows
        };
        for (kind, latency) in shown {
            let _ = write!(out, "<tr><td>{}</td>", escape(label));
            for cell in &throughput {
                let _ = write!(out, "<td>{cell}</td>");
            }
            let _ = write!(out, "<td>{kind}</td>");
            for value in [
                latency.p50,
                latency.p99,
                latency.p99_9,
                latency.p99_99,
                latency.max,
            ] {
                let _ = write!(out, "<td>{}</td>", brief_time(value));
            }
            let _ = writeln!(out, "<td>{}</td></tr>", brief(run.generator.us_per_record));
        }
    }
    out += "</table>\n";
    out
}

#[cfg(test)]
mod tests {
    use super::super::compare::document::tests::comparison;
    use super::super::results::tests::sample;
    use super::*;

    /// Every element that is opened is closed, in order; every attribute is quoted.
    fn assert_well_formed(page: &str) {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = page;
        while let Some(at) = rest.find('<') {
            assert!(
                !rest[..at].contains('>'),
                "a stray > before {}",
                &rest[at..(at + 40).min(rest.len())]
            );
            let end = at + rest[at..].find('>').unwrap();
            let tag = &rest[at + 1..end];
            assert!(
                !tag.contains('<') && tag.matches('"').count().is_multiple_of(2),
                "{tag}"
            );
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.starts_with('!') && !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().unwrap());
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty(), "{open:?}");
    }

    fn series(label: &str, slowness: u64) -> Series {
        Series {
            label: label.to_owned(),
            machine: "a \"machine\"".to_owned(),
            runs: vec![sample("one", slowness), sample("<two>", slowness)],
        }
    }

    #[test]
    fn the_page_is_well_formed_and_needs_nothing_from_elsewhere() {
        let page = page(&[series("a", 1), series("b & c", 7)], &[comparison()]);
        assert_well_formed(&page);
        for part in [
            "<svg",
            "99.9%",
            "prefers-color-scheme:dark",
            "b &amp; c",
            "&lt;two&gt;",
            "p99.99",
        ] {
            assert!(page.contains(part), "{part}");
        }
        for part in ["<script", "http", "src=", "NaN", "inf"] {
            assert!(!page.contains(part), "{part}");
        }
        assert_eq!(page.matches("<h2>").count(), 2);
    }

    #[test]
    fn a_run_without_anything_measured_draws_empty_charts() {
        let mut empty = sample("none", 1);
        (empty.produced, empty.consumed) = (None, None);
        (empty.produce_latency, empty.end_to_end_latency) = (None, None);
        empty.seconds.clear();
        let series = Series {
            label: "x".to_owned(),
            machine: String::new(),
            runs: vec![empty],
        };
        let page = page(&[series], &[]);
        assert_well_formed(&page);
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }
}
