//! Charts: bars side by side, and wholes in their parts.

use super::super::record::Record;
use super::super::table::number;

const WIDTH: f64 = 860.0;
const LABELS: f64 = 210.0;
const ROW: f64 = 26.0;
const BAR: f64 = 18.0;
/// Room for the figure behind the longest bar.
const FIGURES: f64 = 110.0;
const COLOURS: [&str; 10] = [
    "#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e",
    "#9498a0",
];

/// A bar for each record, with its range.
pub fn bars(records: &[&Record]) -> String {
    let largest = records.iter().map(|record| record.max).fold(0.0, f64::max);
    let scale = if largest > 0.0 { (WIDTH - LABELS - FIGURES) / largest } else { 0.0 };
    let mut body = String::new();
    for (row, record) in records.iter().enumerate() {
        let (y, length) = (row as f64 * ROW + 6.0, record.value * scale);
        let colour = if record.subject.starts_with("firecrest") { COLOURS[0] } else { COLOURS[9] };
        body += &label(&record.subject, y);
        body += &rectangle(LABELS, y, length, colour, &record.subject);
        let (from, to, middle) = (LABELS + record.min * scale, LABELS + record.max * scale, y + BAR / 2.0);
        body += &format!(
            "<line x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"#222\"/>\n"
        );
        body += &text(to.max(LABELS + length) + 6.0, y, "start", &number(record.value));
    }
    document(records.len() as f64 * ROW + 12.0, &body)
}

/// A bar for each subject, of its phases in their order, and what the colours mean.
pub fn stacked(records: &[&Record]) -> String {
    let mut subjects: Vec<&str> = Vec::new();
    let mut phases: Vec<&str> = Vec::new();
    for record in records {
        let phase = record.phase.as_deref().unwrap_or_default();
        if !subjects.contains(&record.subject.as_str()) {
            subjects.push(&record.subject);
        }
        if !phases.contains(&phase) {
            phases.push(phase);
        }
    }
    let of = |subject: &&str| records.iter().filter(|r| r.subject == **subject).map(|r| r.value).sum::<f64>();
    let largest = subjects.iter().map(of).fold(0.0, f64::max);
    let scale = if largest > 0.0 { (WIDTH - LABELS - FIGURES) / largest } else { 0.0 };
    let mut body = String::new();
    for (row, subject) in subjects.iter().enumerate() {
        let (y, mut x) = (row as f64 * ROW + 6.0, LABELS);
        body += &label(subject, y);
        for record in records.iter().filter(|record| record.subject == *subject) {
            let phase = record.phase.as_deref().unwrap_or_default();
            let title = format!("{phase}: {} {}", number(record.value), record.unit);
            let length = record.value.max(0.0) * scale;
            body += &rectangle(x, y, length, colour_of(&phases, phase), &title);
            x += length;
        }
        body += &text(x + 6.0, y, "start", &number(of(subject)));
    }
    let below = subjects.len() as f64 * ROW + 16.0;
    for (row, phase) in phases.iter().enumerate() {
        let y = below + row as f64 * ROW;
        body += &rectangle(LABELS, y, BAR, colour_of(&phases, phase), phase);
        let values = subjects.iter().filter_map(|subject| {
            let found = records.iter().find(|r| r.subject == *subject && r.phase.as_deref() == Some(*phase));
            found.map(|record| number(record.value))
        });
        let told = format!("{phase}: {}", values.collect::<Vec<_>>().join(" / "));
        body += &text(LABELS + BAR + 6.0, y, "start", &told);
    }
    document(below + phases.len() as f64 * ROW + 6.0, &body)
}

fn colour_of(phases: &[&str], phase: &str) -> &'static str {
    let place = phases.iter().position(|known| *known == phase).unwrap_or(0);
    COLOURS[place % COLOURS.len()]
}

fn label(subject: &str, y: f64) -> String {
    text(LABELS - 8.0, y, "end", subject)
}

fn rectangle(x: f64, y: f64, width: f64, colour: &str, title: &str) -> String {
    let title = escaped(title);
    format!(
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{colour}\"><title>{title}</title></rect>\n"
    )
}

fn text(x: f64, y: f64, anchor: &str, text: &str) -> String {
    let (y, text) = (y + BAR - 5.0, escaped(text));
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn document(height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(subject: &str, value: f64) -> Record {
        Record::of("g", "n", subject, "ms", &[value])
    }

    /// The widths of the rectangles but the background's.
    fn widths(svg: &str) -> Vec<f64> {
        let rectangles = svg.split("<rect x=").skip(1);
        rectangles
            .map(|rest| rest.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect()
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let (one, two) = (record("firecrest", 1.0), record("a < b", 2.0));
        let svg = bars(&[&one, &two]);
        let widths = widths(&svg);
        assert_eq!(widths.len(), 2);
        assert!((widths[1] / widths[0] - 2.0).abs() < 0.01, "{widths:?}");
        assert!(svg.contains("a &lt; b"), "{svg}");
    }

    #[test]
    fn a_whole_is_in_its_parts() {
        let parts = [record("x", 1.0).phase("p"), record("x", 3.0).phase("q"), record("y", 2.0).phase("p")];
        let svg = stacked(&parts.iter().collect::<Vec<_>>());
        // Three parts, and two colours to be explained.
        assert_eq!(widths(&svg).len(), 5);
        assert!(svg.contains(">4</text>"), "{svg}");
    }

    #[test]
    fn nothing_is_no_bar() {
        assert_eq!(widths(&bars(&[&record("x", 0.0)])), [0.0]);
    }
}
