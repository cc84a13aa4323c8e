//! Lines over time, as SVG.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;
/// Lines of the grid, about.
const GRID: f64 = 4.0;
/// Colours of `report.css`; more lines begin anew.
const COLOURS: usize = 6;

/// A line: what it is called, and its values.
pub(super) type Line<'a> = (&'a str, &'a [f64]);

/// One plot, with its legend. `unit` stands at the largest value.
pub(super) fn plot(title: &str, unit: &str, hours: &[f64], lines: &[Line<'_>]) -> String {
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let top = lines
        .iter()
        .map(|(_, values)| most(values))
        .fold(0.0, f64::max);
    let step = nice(top / GRID);
    let top = (top / step).ceil().max(1.0) * step;
    let end = most(hours).max(f64::MIN_POSITIVE);
    let x = |hour: f64| LEFT + hour / end * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);

    let mut svg = String::new();
    let title = escaped(title);
    let names: Vec<_> = lines.iter().map(|(name, _)| escaped(name)).collect();
    put(
        &mut svg,
        format_args!(
            "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\
             <title>{title}</title><desc>{}, over {}</desc>",
            names.join(", "),
            span(end)
        ),
    );
    let mut value = 0.0;
    while value <= top * 1.000_001 {
        let at = y(value);
        let suffix = if value + step > top * 1.000_001 {
            unit
        } else {
            ""
        };
        put(
            &mut svg,
            format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}{suffix}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                number(value)
            ),
        );
        value += step;
    }
    let hour_step = time_step(end);
    let mut hour = 0.0;
    while hour <= end * 1.000_001 {
        put(
            &mut svg,
            format_args!(
                "<text class=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x(hour),
                HEIGHT - 8.0,
                span(hour)
            ),
        );
        hour += hour_step;
    }
    for (position, (_, values)) in lines.iter().enumerate() {
        let points = hours.iter().zip(*values);
        let points: Vec<_> = points
            .map(|(hour, value)| format!("{:.1},{:.1}", x(*hour), y(*value)))
            .collect();
        put(
            &mut svg,
            format_args!(
                "<polyline class=\"c{}\" points=\"{}\"/>",
                position % COLOURS,
                points.join(" ")
            ),
        );
    }
    svg.push_str("</svg><p class=\"legend\">");
    for (position, name) in names.iter().enumerate() {
        put(
            &mut svg,
            format_args!("<span class=\"c{}\">{name}</span> ", position % COLOURS),
        );
    }
    svg.push_str("</p></figure>");
    svg
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(arguments);
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice(least: f64) -> f64 {
    if least <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0];
    let factor = factor.iter().find(|factor| power * **factor >= least);
    power * factor.copied().unwrap_or(10.0)
}

/// Hours between two marks: at most eight of them, and none in the middle of something.
fn time_step(end: f64) -> f64 {
    let steps = [0.25, 1.0, 3.0, 6.0, 12.0, 24.0, 72.0, 168.0, 720.0];
    let step = steps.iter().find(|step| end / **step <= 8.0);
    step.copied().unwrap_or_else(|| nice(end / 8.0))
}

/// Hours for people.
fn span(hours: f64) -> String {
    if hours >= 24.0 {
        format!("{} d", number(hours / 24.0))
    } else if hours >= 1.0 || hours == 0.0 {
        format!("{} h", number(hours))
    } else {
        format!("{} min", number(hours * 60.0))
    }
}

/// A number for people, with thousands apart and no more digits than tell something.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        small if small < 0.1 => 3,
        small if small < 10.0 => 2,
        small if small < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (position, digit) in whole.chars().enumerate() {
        let left = whole.len() - position;
        if position > 0 && left % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    match part.trim_end_matches('0') {
        "" => grouped,
        part => format!("{grouped}.{part}"),
    }
}

/// Text as HTML shows it.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        let written = [0.0, 0.023, 1.5, 12.25, 1_234.4, 1_234_567.0, -1_000.0].map(number);
        let expected = ["0", "0.023", "1.5", "12.2", "1,234", "1,234,567", "-1,000"];
        assert_eq!(written, expected);
    }

    #[test]
    fn a_plot_holds_its_lines_within_its_frame() {
        let hours = [1.0, 2.0, 3.0];
        let values = [10.0, 0.0, 37.0];
        let svg = plot("a <plot>", " ms", &hours, &[("one & two", &values)]);
        assert!(
            svg.contains("a &lt;plot&gt;") && svg.contains("one &amp; two"),
            "{svg}"
        );
        assert!(
            svg.contains("40 ms"),
            "the grid ends above the largest: {svg}"
        );
        let points = svg
            .split("points=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        let points: Vec<(f64, f64)> = points
            .expect("a line")
            .split(' ')
            .filter_map(|point| point.split_once(','))
            .map(|(x, y)| (x.parse().expect("x"), y.parse().expect("y")))
            .collect();
        assert_eq!(points.len(), 3);
        for (x, y) in points {
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y));
        }
    }

    #[test]
    fn nothing_can_be_plotted_too() {
        assert!(plot("nothing", "", &[], &[]).contains("</svg>"));
        assert!(plot("zero", "", &[1.0], &[("zero", &[0.0])]).contains("polyline"));
    }
}
