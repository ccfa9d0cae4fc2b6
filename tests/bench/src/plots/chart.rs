//! What the plots share: axes with ticks at round numbers, colours, a title with a line below it, and a legend.
//!
//! Text in an SVG has no width before somebody's viewer draws it, so nothing here is placed by the width of a text: titles
//! and legends begin at a given place, and ticks have short labels.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::{DrawingArea, IntoDrawingArea, IntoFont, LineSeries, PathElement, RGBColor, SVGBackend, Text};
use plotters::style::{Color, TextStyle, WHITE};

/// The colours of lines, which also those who see no red or no green can tell apart (after Okabe and Ito).
pub const BLUE: RGBColor = RGBColor(0, 114, 178);
pub const ORANGE: RGBColor = RGBColor(213, 94, 0);
pub const GREEN: RGBColor = RGBColor(0, 140, 105);
const INK: RGBColor = RGBColor(34, 34, 34);
const GREY: RGBColor = RGBColor(105, 105, 105);
const GRID: RGBColor = RGBColor(225, 225, 225);
const FONT: &str = "Helvetica, Arial, 'Liberation Sans', sans-serif";

/// How large a picture is.
pub const SIZE: (u32, u32) = (960, 560);
/// What the title and the line below it take.
pub const HEAD: i32 = 84;

/// A part of a picture.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// A part with axes.
pub type Panel<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;

/// An axis: from where to where, which numbers stand at it, and how they are written.
#[derive(Clone)]
pub struct Axis {
    pub name: &'static str,
    range: Range<f64>,
    ticks: Vec<f64>,
    is_log: bool,
    label: fn(f64) -> String,
}

impl Axis {
    /// From 0 to a number at least as great as this one.
    pub fn from_zero(name: &'static str, greatest: f64, label: fn(f64) -> String) -> Self {
        let greatest = if greatest > 0.0 { greatest } else { 1.0 };
        let step = round_step(greatest / 5.0);
        let end = (greatest * 1.02 / step).ceil() * step;
        Self { name, ticks: multiples(step, end), range: 0.0..end, is_log: false, label }
    }

    /// From 0 to just this number.
    pub fn until(name: &'static str, end: f64, label: fn(f64) -> String) -> Self {
        let ticks = multiples(round_step(end / 8.0), end);
        Self { name, ticks, range: 0.0..end, is_log: false, label }
    }

    /// Logarithmic.
    pub fn log(name: &'static str, range: Range<f64>, label: fn(f64) -> String) -> Self {
        Self { name, ticks: log_ticks(&range), range, is_log: true, label }
    }

    fn part(&self, value: f64) -> f64 {
        let Range { start, end } = self.range;
        if self.is_log { (value / start).ln() / (end / start).ln() } else { (value - start) / (end - start) }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        #[allow(clippy::cast_possible_truncation, reason = "a place in a picture")]
        let place = (f64::from(to - from) * self.part(*value).clamp(-0.5, 1.5)).round() as i32;
        from + place
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(value: &f64) -> String {
        value.to_string()
    }

    fn format_ext(&self, value: &f64) -> String {
        (self.label)(*value)
    }
}

/// The least of 1, 2 and 5 by a power of ten that is no less.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().find(|step| step * power >= least * 0.999);
    step.unwrap_or(10.0) * power
}

/// The multiples of a step from 0 to an end.
fn multiples(step: f64, end: f64) -> Vec<f64> {
    (0..=1_000).map(|number| f64::from(number) * step).take_while(|tick| *tick <= end + step / 1e3).collect()
}

/// Powers of ten, and 2 and 5 times those where they are few.
fn log_ticks(range: &Range<f64>) -> Vec<f64> {
    let decades = (range.end / range.start).log10();
    let parts: &[f64] = if decades > 4.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let powers = (-9..=12).map(|power| 10_f64.powi(power));
    let ticks = powers.flat_map(|power| parts.iter().map(move |part| part * power));
    ticks.filter(|tick| *tick >= range.start * 0.999 && *tick <= range.end * 1.001).collect()
}

/// A size of text in a colour.
fn text(size: u32, color: RGBColor) -> TextStyle<'static> {
    // The library makes letters smaller than asked by this factor.
    (FONT, f64::from(size) * 1.24).into_font().color(&color)
}

/// Why a picture could not be drawn; the library's errors live as long as the picture.
pub fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("the picture cannot be drawn: {error}")
}

/// Draws a picture with a title into a file.
pub fn picture(file: &Path, (title, below): (&str, &str), draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<()> {
    let mut drawn = String::new();
    {
        let root = SVGBackend::with_string(&mut drawn, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let bold = (FONT, 20.0 * 1.24).into_font().style(plotters::style::FontStyle::Bold).color(&INK);
        root.draw(&Text::new(title.to_string(), (24, 18), bold)).map_err(failed)?;
        root.draw(&Text::new(below.to_string(), (24, 48), text(13, GREY))).map_err(failed)?;
        draw(&root)?;
        root.present().map_err(failed)?;
    }
    std::fs::write(file, drawn).with_context(|| format!("{} cannot be written", file.display()))
}

/// A panel with its axes and grid.
pub fn panel<'a>(area: &Area<'a>, x: Axis, y: Axis) -> Result<Panel<'a>> {
    let (x_name, y_name) = (x.name, y.name);
    let (x_ticks, y_ticks) = (x.ticks.len(), y.ticks.len());
    let mut builder = ChartBuilder::on(area);
    builder.margin_left(14).margin_top(12).margin_bottom(10).margin_right(36);
    builder.y_label_area_size(72).x_label_area_size(if x_name.is_empty() { 26 } else { 50 });
    let mut panel = builder.build_cartesian_2d(x, y).map_err(failed)?;
    let mut mesh = panel.configure_mesh();
    mesh.x_labels(x_ticks).y_labels(y_ticks).max_light_lines(0);
    mesh.x_desc(x_name).y_desc(y_name).bold_line_style(GRID).light_line_style(GRID).axis_style(GREY);
    mesh.label_style(text(13, INK)).axis_desc_style(text(14, INK)).draw().map_err(failed)?;
    Ok(panel)
}

/// Draws a line.
pub fn line(panel: &mut Panel<'_>, points: impl IntoIterator<Item = (f64, f64)>, color: RGBColor) -> Result<()> {
    panel.draw_series(LineSeries::new(points, color.stroke_width(2))).map_err(failed)?;
    Ok(())
}

/// Whether the entries of a legend stand beside or below each other.
#[derive(Clone, Copy)]
pub enum Layout {
    Row,
    Column,
}

/// Texts, each after a piece of its line, from a place on.
pub fn legend(area: &Area<'_>, (x, y): (i32, i32), layout: Layout, entries: &[(RGBColor, String)]) -> Result<()> {
    let step = match layout {
        Layout::Row => (170, 0),
        Layout::Column => (0, 24),
    };
    for ((color, entry), at) in entries.iter().zip(0_i32..) {
        let (x, y) = (x + at * step.0, y + at * step.1);
        debug_assert!(y + 24 < i32::try_from(SIZE.1).unwrap_or(0), "the legend lies in the picture");
        let piece = PathElement::new(vec![(x, y), (x + 28, y)], color.stroke_width(3));
        area.draw(&piece).map_err(failed)?;
        area.draw(&Text::new(entry.clone(), (x + 38, y - 6), text(14, INK))).map_err(failed)?;
    }
    Ok(())
}

/// A number with a comma between thousands: `10,000`.
pub fn with_commas(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = if number < 0.0 && digits != "0" { "-".to_string() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number as short as it may be: `20 k`, `1.5 M`.
pub fn short(number: f64) -> String {
    let (number, unit) = match number.abs() {
        n if n >= 999_950.0 => (number / 1e6, " M"),
        n if n >= 1e3 => (number / 1e3, " k"),
        _ => (number, ""),
    };
    // Two digits after the point at the most, and none that say nothing.
    format!("{}{unit}", (number * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers() {
        let y = Axis::from_zero("", 237.0, short);
        assert_eq!(y.ticks, [0.0, 50.0, 100.0, 150.0, 200.0, 250.0]);
        assert_eq!(y.range, 0.0..250.0);
        assert_eq!(Axis::until("", 60.0, short).ticks, [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        assert!((Axis::from_zero("", 0.0, short).range.end - 1.2).abs() < 1e-9);
        assert_eq!(log_ticks(&(1.0..40.0)), [1.0, 2.0, 5.0, 10.0, 20.0]);
        assert_eq!(log_ticks(&(1.0..100_000.0)), [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0]);
    }

    #[test]
    fn places_are_even_on_their_scale() {
        let log = Axis::log("", 1.0..10_000.0, short);
        assert_eq!(log.map(&100.0, (0, 400)), 200);
        assert_eq!(Axis::until("", 60.0, short).map(&15.0, (400, 0)), 300);
    }

    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 0.5, 20.0, 1_500.0, 250_000.0, 1_290_000.0].map(short);
        assert_eq!(numbers, ["0", "0.5", "20", "1.5 k", "250 k", "1.29 M"]);
        assert_eq!(
            [1.0, 999.0, 1_000.0, 1_234_567.0, -1_000.0].map(with_commas),
            ["1", "999", "1,000", "1,234,567", "-1,000"]
        );
    }
}
