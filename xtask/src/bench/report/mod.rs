//! `cargo xtask bench --report FILE...`: a page of results, with charts, from files of `--json`.

mod svg;

use std::fs;
use std::path::{Path, PathBuf};

use super::record::{Document, Record};
use super::table::{families, number};
use crate::cargo;
use crate::error::{Error, Result};

/// Reads the files, writes the page and its charts, and says where they are.
pub fn make(files: &[PathBuf]) -> Result<()> {
    if files.is_empty() {
        return Err(Error::usage("--report: give FILES of `cargo xtask bench --json`"));
    }
    let documents = files.iter().map(|file| Document::read(file)).collect::<Result<Vec<_>>>()?;
    let directory = cargo::target_directory().join("bench-report");
    fs::create_dir_all(&directory).map_err(|error| Error::io("create", &directory, &error))?;
    let page = page(&documents);
    for (name, svg) in &page.charts {
        write(&directory.join(name), svg)?;
    }
    let path = directory.join("README.md");
    write(&path, &page.text)?;
    println!("{}", path.display());
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| Error::io("write", path, &error))
}

/// A page, and the charts it shows, by file name.
struct Page {
    text: String,
    charts: Vec<(String, String)>,
}

fn page(documents: &[Document]) -> Page {
    let mut page = Page { text: "# Benchmarks\n".to_owned(), charts: Vec::new() };
    for document in documents {
        page.text +=
            &format!("\n## `{}`\n\nCommit {}, on {}.\n", document.command, document.commit, document.machine);
        for family in families(&document.records) {
            section(&mut page, &family);
        }
        if !document.remarks.is_empty() {
            page.text += "\n### Not measured\n\n";
            document.remarks.iter().for_each(|remark| page.text += &format!("- {remark}\n"));
        }
    }
    page
}

/// One thing measured: a chart, and the figures of it.
fn section(page: &mut Page, family: &[&Record]) {
    let Some(first) = family.first() else { return };
    let Record { group, name, unit, conditions, .. } = first;
    page.text += &format!("\n### {group}: {name}\n\n");
    if !conditions.is_empty() {
        page.text += &format!("{conditions}. ");
    }
    page.text += &format!("In {unit}; the median, with the range of all measurements.\n\n");
    let chart = if first.phase.is_some() { svg::stacked(family) } else { svg::bars(family) };
    let file = format!("chart-{}.svg", page.charts.len() + 1);
    page.text +=
        &format!("![{group}: {name}]({file})\n\n| | {unit} | min | max | n |\n|---|---|---|---|---|\n");
    page.charts.push((file, chart));
    for record in family {
        let label = record
            .phase
            .as_ref()
            .map_or_else(|| record.subject.clone(), |phase| format!("{}: {phase}", record.subject));
        let [value, min, max] = [record.value, record.min, record.max].map(number);
        page.text += &format!("| {label} | {value} | {min} | {max} | {} |\n", record.n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_every_figure_and_a_chart_for_each_thing() {
        let records = vec![
            Record::of("boot", "to PID 1", "firecrest", "instructions", &[3e7]),
            Record::of("boot", "to PID 1", "firecracker", "instructions", &[7e7]),
            Record::of("start", "phases", "firecrest", "ms", &[0.5]).phase("planned"),
        ];
        let document = Document {
            command: "cargo xtask bench boot".into(),
            commit: "abc".into(),
            machine: "one".into(),
            records,
            remarks: vec!["SKIPPED io".into()],
        };
        let page = page(&[document]);
        assert_eq!(page.charts.len(), 2);
        for text in ["30,000,000", "70,000,000", "firecrest: planned", "chart-2.svg", "SKIPPED io", "abc"] {
            assert!(page.text.contains(text), "{text} in {}", page.text);
        }
        assert!(page.charts.iter().all(|(_, svg)| svg.starts_with("<svg") && svg.ends_with("</svg>\n")));
    }
}
