//! Records as tables a person can read: one for each thing measured, a line for each subject.

use super::record::Record;

/// All records, those of one name and unit together, in the order in which the first of each came.
pub fn text(records: &[Record]) -> String {
    let mut text = String::new();
    for family in families(records) {
        let Some(first) = family.first() else { continue };
        text += &format!("\n{}: {}, {}", first.group, first.name, first.unit);
        if !first.conditions.is_empty() {
            text += &format!(" ({})", first.conditions);
        }
        let width = family.iter().map(|record| label(record).len()).max().unwrap_or(0);
        text += &format!(
            "\n  {:<width$} {:>12} {:>12} {:>12} {:>8} {:>4}\n",
            "", "median", "min", "max", "x first", "n"
        );
        for record in &family {
            let ratio = if first.value == 0.0 { "-".into() } else { number(record.value / first.value) };
            let [value, min, max] = [record.value, record.min, record.max].map(number);
            text += &format!(
                "  {:<width$} {value:>12} {min:>12} {max:>12} {ratio:>8} {:>4}\n",
                label(record),
                record.n
            );
        }
    }
    text
}

/// Records of one thing: comparable with one another.
pub fn families(records: &[Record]) -> Vec<Vec<&Record>> {
    let key = |record: &Record| {
        let Record { group, name, unit, conditions, .. } = record;
        (group.clone(), name.clone(), unit.clone(), conditions.clone())
    };
    let mut families: Vec<Vec<&Record>> = Vec::new();
    for record in records {
        let place = families.iter_mut().find(|family| family.first().is_some_and(|f| key(f) == key(record)));
        match place {
            Some(family) => family.push(record),
            None => families.push(vec![record]),
        }
    }
    families
}

fn label(record: &Record) -> String {
    match &record.phase {
        Some(phase) => format!("{}: {phase}", record.subject),
        None => record.subject.clone(),
    }
}

/// As many digits as mean something; thousands set apart.
pub fn number(value: f64) -> String {
    let places = match value.abs() {
        large if large >= 1000.0 || large.fract() == 0.0 => 0,
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    // Not `-0.00`.
    let digits = format!("{:.places$}", if value.abs() < 0.005 { 0.0 } else { value });
    let (whole, fraction) = digits.split_once('.').map_or((digits.as_str(), ""), |(w, f)| (w, f));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place != 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { format!("{sign}{grouped}") } else { format!("{sign}{grouped}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(number(35_000_000.0), "35,000,000");
        assert_eq!(number(1234.6), "1,235");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(0.0), "0");
        assert_eq!(number(-0.004), "0.00");
        assert_eq!(number(1.297), "1.30");
    }

    #[test]
    fn subjects_of_one_thing_stand_together() {
        let record = |name, subject, value| Record::of("start", name, subject, "ms", &[value]);
        let records = [record("a", "floor", 2.0), record("b", "floor", 1.0), record("a", "firecrest", 3.0)];
        let families = families(&records);
        assert_eq!(families.len(), 2);
        assert_eq!(families[0].len(), 2);
        let text = text(&records);
        let line = text.lines().find(|line| line.contains("firecrest")).unwrap();
        assert!(line.contains("1.50"), "{text}");
    }
}
