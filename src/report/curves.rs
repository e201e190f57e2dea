//! Curves of a run as one page of HTML: SVG inside, no script, nothing from a network.

use super::xml::escaped;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use std::fmt::Write;
use std::io;
use std::ops::Range;

/// A page about a run.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub title: String,
    /// Names and values, above the charts.
    pub facts: Vec<(String, String)>,
    pub charts: Vec<Chart>,
}

/// Curves over the same steps.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    pub title: String,
    pub curves: Vec<Curve>,
}

/// A quantity by step.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    pub name: String,
    /// In the order of steps; what is not finite is left out.
    pub points: Vec<(f64, f64)>,
}

const SIZE: (u32, u32) = (760, 280);
/// Curves of more points are drawn through the means of runs of points.
const DRAWN: usize = 600;
const COLORS: [RGBColor; 6] = [
    RGBColor(0x24, 0x6b, 0xb2),
    RGBColor(0xd0, 0x6a, 0x1c),
    RGBColor(0x3b, 0x8b, 0x4a),
    RGBColor(0x8e, 0x44, 0x9c),
    RGBColor(0xa3, 0x2c, 0x3c),
    RGBColor(0x55, 0x5f, 0x6b),
];
/// Up to so many points each is marked.
const MARKED: usize = 40;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:48rem;\
padding:0 1rem;color:#222;background:#fff}h1{font-size:1.4rem}h2{font-size:1.05rem;margin:1.6rem 0 0}\
table{border-collapse:collapse}td{padding:.1rem 1.2rem .1rem 0;vertical-align:top}\
td+td{font-variant-numeric:tabular-nums}svg{width:100%;height:auto}.key{margin-right:1.2rem}";

/// The page as one HTML document.
pub fn html(page: &Page) -> String {
    let title = escaped(&page.title);
    let mut text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n<table>\n"
    );
    for (name, value) in &page.facts {
        let (name, value) = (escaped(name), escaped(value));
        let _ = writeln!(text, "<tr><td>{name}</td><td>{value}</td></tr>");
    }
    text.push_str("</table>\n");
    for chart in &page.charts {
        section(&mut text, chart);
    }
    text.push_str("</body>\n</html>\n");
    text
}

fn section(text: &mut String, chart: &Chart) {
    let curves: Vec<Vec<(f64, f64)>> = chart.curves.iter().map(drawn).collect();
    if curves.iter().all(Vec::is_empty) {
        return;
    }
    let title = escaped(&chart.title);
    let _ = writeln!(text, "<h2>{title}</h2>\n<div>");
    for (curve, color) in chart.curves.iter().zip(COLORS.iter().cycle()) {
        let RGBColor(red, green, blue) = color;
        let name = escaped(&curve.name);
        let _ = writeln!(
            text,
            "<span class=\"key\" style=\"color:rgb({red},{green},{blue})\">● {name}</span>"
        );
    }
    text.push_str("</div>\n");
    let mut picture = String::new();
    // Only the file behind a backend can fail, and this one has none.
    let _ = draw(&mut picture, &curves);
    text.push_str(picture.trim_start());
}

fn draw(
    picture: &mut String,
    curves: &[Vec<(f64, f64)>],
) -> Result<(), DrawingAreaErrorKind<io::Error>> {
    let area = SVGBackend::with_string(picture, SIZE).into_drawing_area();
    let all = || curves.iter().flatten();
    let steps = range(all().map(|(step, _)| *step), 0.0);
    let values = range(all().map(|(_, value)| *value), 0.05);
    let mut chart = ChartBuilder::on(&area)
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(64)
        .build_cartesian_2d::<Range<f64>, Range<f64>>(steps, values)?;
    mesh(&mut chart)?;
    for (points, color) in curves.iter().zip(COLORS.iter().cycle()) {
        let line = LineSeries::new(points.iter().copied(), color.stroke_width(2));
        chart.draw_series(line)?;
        if points.len() <= MARKED {
            let marks = points.iter();
            chart.draw_series(marks.map(|point| Circle::new(*point, 3, color.filled())))?;
        }
    }
    area.present()
}

type Area<'c, 'p> = ChartContext<'c, SVGBackend<'p>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn mesh(chart: &mut Area<'_, '_>) -> Result<(), DrawingAreaErrorKind<io::Error>> {
    chart
        .configure_mesh()
        .x_labels(7)
        .y_labels(6)
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(0xdd, 0xdd, 0xdd))
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|value| number(*value))
        .draw()
}

/// A number of a scale in few characters.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e5).contains(&size) => format!("{value:.1e}"),
        size if size < 10.0 => format!("{value:.3}"),
        _ => format!("{value:.0}"),
    }
}

/// From the smallest to the largest, with a margin as a share of it on both sides; never empty.
fn range(values: impl Iterator<Item = f64>, margin: f64) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let wide = high - low;
    // Also where the numbers are so large that adding 1 changes nothing.
    let wide = match wide > high.abs() * 1e-9 {
        true => wide * margin,
        false => high.abs().max(1.0) / 2.0,
    };
    low - wide..high + wide
}

/// The points that are drawn of a curve.
fn drawn(curve: &Curve) -> Vec<(f64, f64)> {
    let finite = curve.points.iter();
    let finite: Vec<(f64, f64)> = finite
        .filter(|(step, value)| step.is_finite() && value.is_finite())
        .copied()
        .collect();
    let run = finite.len().div_ceil(DRAWN).max(1);
    let mean = |points: &[(f64, f64)]| {
        let count = points.len() as f64;
        let (steps, values) = points.iter().fold((0.0, 0.0), |(steps, values), point| {
            (steps + point.0 / count, values + point.1 / count)
        });
        (steps, values)
    };
    finite.chunks(run).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(points: Vec<(f64, f64)>) -> String {
        html(&Page {
            title: "a < b & c".to_owned(),
            facts: vec![("steps".to_owned(), "3 > 2".to_owned())],
            charts: vec![Chart {
                title: "loss".to_owned(),
                curves: vec![Curve {
                    name: "training".to_owned(),
                    points,
                }],
            }],
        })
    }

    #[test]
    fn a_page_holds_everything_that_it_shows() {
        let page = page(vec![(1.0, 2.0), (2.0, 1.0), (3.0, f64::NAN)]);
        assert!(page.contains("<h1>a &lt; b &amp; c</h1>"), "{page}");
        assert!(page.contains("3 &gt; 2"), "{page}");
        assert_eq!(page.matches("<svg").count(), 1);
        // Two points, and none for what is no number.
        assert_eq!(page.matches("<circle").count(), 2);
        // Of addresses only the name of SVG's namespace, which nobody opens.
        let addresses = page.matches("://").count();
        assert_eq!(addresses, page.matches("xmlns=\"http://").count());
    }

    #[test]
    fn every_curve_has_a_picture_and_an_empty_one_none() {
        for points in [
            vec![(5.0, 1.0)],
            vec![(0.0, 1e300), (1.0, -1e300)],
            vec![(0.0, 0.0), (1.0, 0.0)],
            vec![(0.0, 1e-12), (1.0, 1e-12)],
            (0..5000).map(|step| (f64::from(step), 1.0)).collect(),
        ] {
            let shown = format!("{:?}", points.first());
            assert_eq!(page(points).matches("<svg").count(), 1, "{shown}");
        }
        assert!(!page(Vec::new()).contains("<svg"));
        assert!(!page(vec![(1.0, f64::NAN)]).contains("<svg"));
    }

    #[test]
    fn long_curves_are_means() {
        let curve = Curve {
            name: String::new(),
            points: (0..1200)
                .map(|step| (f64::from(step), f64::from(step % 2)))
                .collect(),
        };
        let drawn = drawn(&curve);
        assert_eq!(drawn.len(), 600);
        assert_eq!(drawn[0], (0.5, 0.5));
    }
}
