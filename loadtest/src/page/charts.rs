//! The charts: bars beside each other, lines over time, latency by percentile. Each is 400 wide, so that its text has
//! one size on a phone and on a desk.

use super::markup::{Anchor, Drawing};
use super::numbers::{microseconds, short, tick};

/// Width of every chart.
pub const WIDTH: f64 = 400.0;
/// A bar with the gap below it.
const BAR_STEP: f64 = 23.0;
const BAR_HEIGHT: f64 = 14.0;
/// Where bars begin: names are left of it.
const NAMES_WIDTH: f64 = 132.0;
/// Room for a value right of its bar.
const VALUE_WIDTH: f64 = 58.0;
/// Estimated width of a character of the charts' 11 and 12 pixel text.
const CHARACTER_WIDTH: f64 = 6.4;

/// A bar.
#[derive(Clone, Debug, Default)]
pub struct Bar {
    pub name: String,
    /// None draws its note instead.
    pub value: Option<f64>,
    /// Quartiles.
    pub range: Option<(f64, f64)>,
    pub note: String,
    pub ours: bool,
}

/// Bars below each other, with the floor as a line.
#[derive(Clone, Debug, Default)]
pub struct Bars {
    pub unit: String,
    pub bars: Vec<Bar>,
    pub floor: Option<f64>,
}

impl Bars {
    pub fn draw(&self) -> Drawing {
        let top = if self.floor.is_some() { 22.0 } else { 4.0 };
        let bottom = top + BAR_STEP * self.bars.len() as f64;
        let mut drawing = Drawing::new(WIDTH, bottom + 34.0);
        let highest = self.bars.iter().flat_map(|bar| [bar.value, bar.range.map(|range| range.1)]).flatten();
        let scale = Scale::linear(highest.chain(self.floor).fold(0.0, f64::max), NAMES_WIDTH, WIDTH - VALUE_WIDTH, 4);
        for &at in &scale.ticks {
            let x = scale.place(at);
            drawing.line("grid", (x, top), (x, bottom));
            drawing.text("tick", (x, bottom + 14.0), Anchor::Middle, &tick(at));
        }
        drawing.text("axis", ((NAMES_WIDTH + WIDTH - VALUE_WIDTH) / 2.0, bottom + 29.0), Anchor::Middle, &self.unit);
        let places = || (0_u32..).map(|row| top + BAR_STEP * f64::from(row) + (BAR_STEP - BAR_HEIGHT) / 2.0);
        for (bar, y) in self.bars.iter().zip(places()) {
            self.bar(&mut drawing, &scale, bar, y);
        }
        drawing.line("base", (NAMES_WIDTH, top), (NAMES_WIDTH, bottom));
        if let Some(floor) = self.floor {
            let x = scale.place(floor);
            drawing.line("floor", (x, top - 6.0), (x, bottom));
            // The label turns inward where it would leave the chart.
            let label = format!("floor {}", short(floor));
            let half = label.len() as f64 * CHARACTER_WIDTH / 2.0;
            drawing.text("floor-text", (x.clamp(half, WIDTH - half), top - 10.0), Anchor::Middle, &label);
        }
        // Values are written over the floor's line.
        for (bar, y) in self.bars.iter().zip(places()) {
            Self::value(&mut drawing, &scale, bar, y + BAR_HEIGHT - 3.0);
        }
        drawing
    }

    fn bar(&self, drawing: &mut Drawing, scale: &Scale, bar: &Bar, y: f64) {
        let strength = if bar.ours { "strong" } else { "" };
        drawing.text(strength, (NAMES_WIDTH - 8.0, y + BAR_HEIGHT - 3.0), Anchor::End, &bar.name);
        let Some(value) = bar.value else { return };
        let about = format!("{}: {} {}", bar.name, short(value), self.unit);
        let class = if bar.ours { "ours" } else { "others" };
        let width = (scale.place(value) - NAMES_WIDTH).max(1.0);
        drawing.rect(class, (NAMES_WIDTH, y), (width, BAR_HEIGHT), &about);
        if let Some((low, high)) = bar.visible_range(scale) {
            let y = y + BAR_HEIGHT / 2.0;
            drawing.line("whisker", (low, y), (high, y));
            for x in [low, high] {
                drawing.line("whisker", (x, y - 3.0), (x, y + 3.0));
            }
        }
    }

    fn value(drawing: &mut Drawing, scale: &Scale, bar: &Bar, y: f64) {
        let Some(value) = bar.value else {
            return drawing.text("note", (NAMES_WIDTH + 7.0, y), Anchor::Start, &bar.note);
        };
        let right = bar.visible_range(scale).map_or(0.0, |range| range.1).max(scale.place(value));
        let class = if bar.ours { "value strong" } else { "value" };
        drawing.text(class, (right + 6.0, y), Anchor::Start, &short(value));
    }
}

impl Bar {
    /// Where its quartiles are drawn, if they are a pixel apart.
    fn visible_range(&self, scale: &Scale) -> Option<(f64, f64)> {
        let (low, high) = self.range?;
        let range = (scale.place(low), scale.place(high));
        (range.1 - range.0 >= 1.0).then_some(range)
    }
}

/// A line of a chart over time or percentiles.
#[derive(Clone, Debug, Default)]
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// What was done from when to when.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    pub name: String,
    pub from: f64,
    pub to: f64,
}

/// Where lines are drawn.
const PLOT: (f64, f64, f64, f64) = (52.0, 24.0, WIDTH - 14.0, 190.0);
const LINES_HEIGHT: f64 = 228.0;
/// A line of a legend, which is below the plot.
const LEGEND_STEP: f64 = 17.0;

/// A single line needs no legend: the caption names it.
fn legend_height(series: &[Series]) -> f64 {
    if series.len() > 1 { LEGEND_STEP * series.len() as f64 + 6.0 } else { 0.0 }
}

/// One or more lines over seconds.
pub fn over_time(unit: &str, series: &[Series], stages: &[Stage]) -> Drawing {
    let mut drawing = Drawing::new(WIDTH, LINES_HEIGHT + legend_height(series));
    let (left, top, right, bottom) = PLOT;
    let points = || series.iter().flat_map(|series| &series.points);
    let across = Scale::linear(points().fold(0.0, |most, point| point.0.max(most)), left, right, 5);
    let up = Scale::linear(points().fold(0.0, |most, point| point.1.max(most)), bottom, top, 4);
    for (stage, number) in stages.iter().zip(0_u32..) {
        let (from, to) = (across.place(stage.from), across.place(stage.to));
        if number % 2 == 1 {
            drawing.rect("band", (from, top), ((to - from).max(0.0), bottom - top), &stage.name);
        }
        if to - from > stage.name.len() as f64 * CHARACTER_WIDTH + 4.0 {
            drawing.text("tick", ((from + to) / 2.0, top - 7.0), Anchor::Middle, &stage.name);
        }
    }
    axes(&mut drawing, &across, &up, tick);
    drawing.text("axis", ((left + right) / 2.0, LINES_HEIGHT - 5.0), Anchor::Middle, "seconds");
    if stages.is_empty() {
        drawing.text("axis", (2.0, 11.0), Anchor::Start, unit);
    }
    lines(&mut drawing, series, &across, &up, true);
    drawing
}

/// Latency by percentile, in microseconds: each step to the right is a tenth of those that are left.
pub fn percentiles(series: &[Series]) -> Drawing {
    let mut drawing = Drawing::new(WIDTH, LINES_HEIGHT + legend_height(series));
    let (left, top, right, bottom) = PLOT;
    let nines = |quantile: f64| -(1.0 - quantile).max(1e-9).log10();
    let placed: Vec<Series> = series
        .iter()
        .map(|one| Series {
            name: one.name.clone(),
            points: one.points.iter().map(|(quantile, us)| (nines(*quantile), us.max(1.0).log10())).collect(),
        })
        .collect();
    let points = || placed.iter().flat_map(|series| &series.points);
    let most = points().fold(1.0, |most: f64, point| point.0.max(most));
    let marks =
        [(0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %"), (0.999_99, "99.999 %")];
    let across = Scale { from: 0.0, to: most, start: left, end: right, ticks: Vec::new() };
    let low = points().fold(f64::MAX, |least, point| point.1.min(least)).floor().min(9.0);
    let high = points().fold(low + 1.0, |most, point| point.1.max(most)).ceil();
    let decades = (low as i32..=high as i32).map(f64::from).collect();
    let up = Scale { from: low, to: high, start: bottom, end: top, ticks: decades };
    axes(&mut drawing, &across, &up, |decade| microseconds(10_f64.powf(decade)));
    let mut free = f64::MIN;
    for (quantile, text) in marks.iter().filter(|(quantile, _)| nines(*quantile) <= most) {
        let (x, half) = (across.place(nines(*quantile)), text.len() as f64 * CHARACTER_WIDTH / 2.0);
        drawing.line("grid", (x, top), (x, bottom));
        if x - half > free {
            free = x + half + 2.0;
            drawing.text("tick", (x.min(WIDTH - half), bottom + 15.0), Anchor::Middle, text);
        }
    }
    drawing.text(
        "axis",
        ((left + right) / 2.0, LINES_HEIGHT - 5.0),
        Anchor::Middle,
        "share of deliveries that were at least so quick",
    );
    lines(&mut drawing, &placed, &across, &up, false);
    drawing
}

fn axes(drawing: &mut Drawing, across: &Scale, up: &Scale, name: impl Fn(f64) -> String) {
    let (left, _, right, bottom) = PLOT;
    for &at in &up.ticks {
        let y = up.place(at);
        drawing.line("grid", (left, y), (right, y));
        drawing.text("tick", (left - 6.0, y + 4.0), Anchor::End, &name(at));
    }
    for &at in &across.ticks {
        drawing.text("tick", (across.place(at), bottom + 15.0), Anchor::Middle, &tick(at));
    }
    drawing.line("base", (left, bottom), (right, bottom));
}

fn lines(drawing: &mut Drawing, series: &[Series], across: &Scale, up: &Scale, filled: bool) {
    let bottom = PLOT.3;
    for (one, number) in series.iter().zip(1_u32..) {
        let colour = (number - 1) % 4 + 1;
        let mut points: Vec<_> = one.points.iter().map(|(x, y)| (across.place(*x), up.place(*y))).collect();
        drawing.path(&format!("line s{colour}"), &points, false);
        if let (true, 1, Some(first), Some(last)) =
            (filled, series.len(), points.first().copied(), points.last().copied())
        {
            points.extend([(last.0, bottom), (first.0, bottom)]);
            drawing.path(&format!("area f{colour}"), &points, true);
        }
        if series.len() > 1 {
            let y = LINES_HEIGHT + LEGEND_STEP * f64::from(number);
            drawing.rect(&format!("f{colour}"), (PLOT.0, y - 13.0), (10.0, 10.0), &one.name);
            drawing.text("tick", (PLOT.0 + 16.0, y - 4.0), Anchor::Start, &one.name);
        }
    }
}

/// From values to places.
#[derive(Clone, Debug)]
struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    ticks: Vec<f64>,
}

impl Scale {
    /// From zero to a round number at or above `most`, in about so many steps.
    fn linear(most: f64, start: f64, end: f64, steps: u32) -> Self {
        let most = if most > 0.0 && most.is_finite() { most } else { 1.0 };
        let rough = most / f64::from(steps);
        let size = 10_f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * size).into_iter().find(|step| *step >= rough * 0.999);
        let step = step.unwrap_or(10.0 * size);
        let count = (most / step * 0.999).ceil().max(1.0);
        let ticks = (0..=count as u32).map(|at| f64::from(at) * step).collect();
        Self { from: 0.0, to: count * step, start, end, ticks }
    }

    fn place(&self, value: f64) -> f64 {
        self.start + (value - self.from) / (self.to - self.from) * (self.end - self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number_that_holds_every_value() {
        for (most, end) in [(0.0, 1.0), (0.37, 0.4), (9.2, 10.0), (10.0, 10.0), (37.0, 40.0), (46_400.0, 60_000.0)] {
            let scale = Scale::linear(most, 0.0, 100.0, 4);
            assert!((scale.to - end).abs() < 1e-9, "{most}: {}", scale.to);
            assert!(scale.ticks.len() <= 6 && scale.place(most) <= 100.0 + 1e-9);
        }
    }

    #[test]
    fn every_bar_has_its_value_and_one_that_could_not_be_measured_its_note() {
        let bars = Bars {
            unit: "µs".to_owned(),
            bars: vec![
                Bar { name: "kittiwake".to_owned(), value: Some(0.51), ours: true, ..Bar::default() },
                Bar { name: "nchan".to_owned(), note: "no QoS".to_owned(), ..Bar::default() },
            ],
            floor: Some(0.44),
        };
        let svg = bars.draw().inline("x");
        for text in ["kittiwake", "0.51", "no QoS", "floor 0.44", "µs"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn lines_of_nothing_and_of_one_point_can_be_drawn() {
        for points in [Vec::new(), vec![(0.0, 0.0)]] {
            let series = [Series { name: "x".to_owned(), points }];
            for drawing in [over_time("B", &series, &[]), percentiles(&series)] {
                let svg = drawing.inline("x");
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }
}
