//! One chart as SVG: axes, a grid, lines. Colours come from the classes of the page, which knows light and dark.

use std::fmt::Write as _;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 104.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// Of the text at a mark, about.
const CHARACTER_WIDTH: f64 = 6.5;

/// How numbers become places on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// From 0.
    Linear,
    Log,
    /// Percentiles: as far again for each further nine.
    Percentile,
}

/// A mark on an axis: where, and what is written there.
type Tick = (f64, String);

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Which of the page's colours.
    pub(super) color: usize,
    pub(super) is_dashed: bool,
    pub(super) points: Vec<[f64; 2]>,
}

/// What is drawn.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x: (Scale, &'static str),
    pub(super) y: (Scale, &'static str),
    /// How a value of the y axis is written.
    pub(super) label: fn(f64) -> String,
    pub(super) lines: Vec<Line>,
}

/// Text in HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// The largest percentile that is drawn apart from 100: eight nines are more than anybody measures.
const NINES_MAX: f64 = 8.0;

fn nines(percentile: f64) -> f64 {
    let rest = 1.0 - percentile / 100.0;
    if rest <= 0.0 {
        NINES_MAX
    } else {
        (-rest.log10()).clamp(0.0, NINES_MAX)
    }
}

/// Steps of 1, 2 and 5 from 0 past the largest value.
fn linear_ticks(max: f64) -> Vec<f64> {
    let rough = max.max(1e-9) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= rough)
        .unwrap_or(10.0);
    let step = factor * power;
    let count = (max / step).ceil().max(1.0) as usize;
    (0..=count).map(|k| k as f64 * step).collect()
}

/// 1, 2 and 5 of each power of ten around the values.
fn log_ticks(min: f64, max: f64) -> Vec<f64> {
    let (min, max) = (min.max(1e-9), max.max(1e-9));
    let mut all: Vec<f64> = Vec::new();
    for power in min.log10().floor() as i32..=max.log10().floor() as i32 + 1 {
        all.extend([1.0, 2.0, 5.0].map(|factor| factor * 10f64.powi(power)));
    }
    let first = all.iter().rposition(|&tick| tick <= min).unwrap_or(0);
    let last = all.iter().position(|&tick| tick >= max).unwrap_or(all.len() - 1);
    let mut ticks = all[first..=last.max(first + 1)].to_vec();
    // Where there are many, powers of ten are enough.
    if ticks.len() > 10 {
        let (low, high) = (ticks[0], ticks[ticks.len() - 1]);
        ticks.retain(|&tick| {
            tick == low || tick == high || (tick.log10() - tick.log10().round()).abs() < 1e-9
        });
    }
    ticks
}

/// Whether the text of a mark ends at it, so that it does not leave the chart.
fn is_at_the_end(at: f64) -> bool {
    at > WIDTH - 2.0 * RIGHT
}

/// Of marks from left to right, which have room for their text beside that of the one before.
fn with_room(marks: &[(f64, &str)]) -> Vec<bool> {
    let mut free_from = f64::NEG_INFINITY;
    let has_room = |&(at, text): &(f64, &str)| {
        let width = text.len() as f64 * CHARACTER_WIDTH;
        let begins = if is_at_the_end(at) {
            at - width
        } else {
            at - width / 2.0
        };
        let has_room = begins >= free_from;
        if has_room {
            free_from = begins + width + CHARACTER_WIDTH;
        }
        has_room
    };
    marks.iter().map(has_room).collect()
}

impl Chart {
    fn bounds(&self, axis: usize) -> (f64, f64) {
        let values = self
            .lines
            .iter()
            .flat_map(|line| line.points.iter().map(|point| point[axis]));
        values.fold((f64::INFINITY, 0.0), |(min, max), value| {
            (value.min(min), value.max(max))
        })
    }

    /// Marks of an axis, and the place of a value from 0 to 1.
    fn axis(&self, axis: usize) -> (Vec<Tick>, Box<dyn Fn(f64) -> f64>) {
        let (min, max) = self.bounds(axis);
        let min = if min.is_finite() { min } else { 0.0 };
        let scale = if axis == 0 { self.x.0 } else { self.y.0 };
        let number = |value: f64| {
            if axis == 0 {
                format!("{value}")
            } else {
                (self.label)(value)
            }
        };
        match scale {
            Scale::Linear => {
                let ticks = linear_ticks(max);
                let end = ticks[ticks.len() - 1];
                (
                    ticks.into_iter().map(|tick| (tick, number(tick))).collect(),
                    Box::new(move |value| value / end),
                )
            }
            Scale::Log => {
                let ticks = log_ticks(min, max);
                let (low, high) = (ticks[0].ln(), ticks[ticks.len() - 1].ln());
                let place = move |value: f64| (value.max(1e-9).ln() - low) / (high - low);
                (
                    ticks.into_iter().map(|tick| (tick, number(tick))).collect(),
                    Box::new(place),
                )
            }
            Scale::Percentile => {
                let below = |percentile: f64| {
                    if percentile < 100.0 {
                        nines(percentile)
                    } else {
                        0.0
                    }
                };
                let percentiles = self
                    .lines
                    .iter()
                    .flat_map(|line| line.points.iter().map(|point| point[0]));
                let end = (percentiles.map(below).fold(1.0, f64::max) + 0.3).min(NINES_MAX);
                let mut ticks = Vec::new();
                for percentile in [0.0, 50.0, 90.0] {
                    ticks.push((percentile, format!("{percentile}%")));
                }
                let mut text = "99".to_owned();
                for count in 2..=end as i32 {
                    ticks.push((100.0 - 100.0 * 10f64.powi(-count), format!("{text}%")));
                    text += if count == 2 { ".9" } else { "9" };
                }
                (ticks, Box::new(move |value| nines(value).min(end) / end))
            }
        }
    }

    /// The chart as an element of a page.
    pub(super) fn svg(&self) -> String {
        let (x_ticks, x_place) = self.axis(0);
        let (y_ticks, y_place) = self.axis(1);
        let x = |value: f64| LEFT + x_place(value).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - y_place(value).clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM);
        let mut out = String::new();
        let title = escape(&self.title);
        let _ = write!(
            out,
            "<figure><figcaption>{title}</figcaption>\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
        );
        for (value, text) in &y_ticks {
            let at = y(*value);
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0,
                escape(text)
            );
        }
        let marks: Vec<(f64, &str)> = x_ticks
            .iter()
            .map(|(value, text)| (x(*value), text.as_str()))
            .collect();
        let has_room = with_room(&marks);
        for ((at, text), has_room) in marks.into_iter().zip(has_room) {
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{at:.1} {TOP}V{:.1}\"/>",
                HEIGHT - BOTTOM
            );
            if has_room {
                let _ = write!(
                    out,
                    "<text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{}\">{}</text>",
                    HEIGHT - BOTTOM + 17.0,
                    if is_at_the_end(at) { "end" } else { "middle" },
                    escape(text)
                );
            }
        }
        let _ = write!(
            out,
            "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"axis\" transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 6.0,
            escape(self.x.1),
            (TOP + HEIGHT - BOTTOM) / 2.0,
            escape(self.y.1)
        );
        for line in &self.lines {
            let dash = if line.is_dashed { " dashed" } else { "" };
            let class = format!("line c{}{dash}", line.color % 8);
            let mut path = String::new();
            for (number, point) in line.points.iter().enumerate() {
                let letter = if number == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{letter}{:.1} {:.1}", x(point[0]), y(point[1]));
            }
            match line.points.as_slice() {
                [] => {}
                // A line needs two.
                [only] => {
                    let (cx, cy) = (x(only[0]), y(only[1]));
                    let color = line.color % 8;
                    let _ = write!(
                        out,
                        "<circle class=\"dot c{color}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3\"/>"
                    );
                }
                _ => {
                    let _ = write!(out, "<path class=\"{class}\" d=\"{path}\"/>");
                }
            }
        }
        out += "</svg></figure>\n";
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_hold_all_values_in_steps_of_one_two_and_five() {
        assert_eq!(linear_ticks(437.0), [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]);
        assert_eq!(linear_ticks(0.0).len(), 2);
        assert_eq!(
            log_ticks(130.0, 3000.0),
            [100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0]
        );
        let wide = log_ticks(3.0, 7e6);
        assert!(
            wide[0] <= 3.0 && wide[wide.len() - 1] >= 7e6 && wide.len() < 12,
            "{wide:?}"
        );
        assert!(log_ticks(1.0, 1.0).len() >= 2);
    }

    #[test]
    fn each_nine_is_as_far_from_the_last() {
        assert!((nines(99.9) - 3.0).abs() < 1e-9 && (nines(90.0) - 1.0).abs() < 1e-9);
        assert_eq!((nines(0.0), nines(100.0)), (0.0, NINES_MAX));
    }

    #[test]
    fn marks_without_room_for_their_text_have_none() {
        let marks = [
            (104.0, "0%"),
            (116.0, "50%"),
            (150.0, "90%"),
            (520.0, "99.999%"),
            (540.0, "99.9999%"),
        ];
        assert_eq!(with_room(&marks), [true, false, true, true, false]);
    }

    #[test]
    fn text_of_others_stays_text() {
        assert_eq!(escape("a<b>&\"c\""), "a&lt;b&gt;&amp;&quot;c&quot;");
    }
}
