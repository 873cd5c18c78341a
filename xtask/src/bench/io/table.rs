//! How results are told.

use super::super::statistics::{median, range};
use super::Contender;
use super::counts::Counts;
use super::report::Report;
use super::workloads::Workload;

pub fn head() -> String {
    format!(
        "\nx peer: times as good as the peer with the same engine, in the median round. Of one operation: device us, CPU time of the monitor's\n\
         threads besides the vCPU's; kicks; exits to user space for device registers; system calls of the whole monitor.\n\n\
         {:<24} {:>8} {:>8} {:>8} {:>7} {:>3} {:>10} {:>6} {:>6} {:>6}\n",
        "", "median", "min", "max", "x peer", "n", "device us", "kicks", "exits", "calls"
    )
}

/// All contenders on one workload.
pub fn section(workload: &Workload, contenders: &[Contender]) -> String {
    let mut text = format!("{}, {}\n", workload.name, workload.unit.name());
    for contender in contenders {
        let name = contender.monitor.name(workload.device);
        text.push_str(&match &contender.failure {
            Some(failure) => format!("  {name:<22} failed: {failure}\n"),
            None => format!("  {name:<22} {}\n", line(workload, contender, contenders)),
        });
    }
    text
}

fn line(workload: &Workload, contender: &Contender, contenders: &[Contender]) -> String {
    let values = values(workload, contender);
    let (middle, (min, max)) = (median(&values), range(&values));
    let ratio = peer_of(contender, contenders).map_or_else(String::new, |peer| {
        // Round by round: the two runs of a round were neighbours, and had the same machine.
        let pairs = values.iter().zip(self::values(workload, peer));
        let ratios: Vec<_> = pairs.map(|(ours, theirs)| workload.unit.ratio(*ours, theirs)).collect();
        number(median(&ratios))
    });
    let of_one = |what: fn(&Report) -> Option<f64>| {
        let reports = contender.reports.iter();
        let each: Vec<_> = reports.filter_map(|report| Some(what(report)? / report.operations)).collect();
        if each.is_empty() { "-".into() } else { number(median(&each)) }
    };
    let device = of_one(|report| Some(report.device_nanoseconds? / 1e3));
    let kicks = of_one(|report| Some(report.kicks));
    let count = |what: fn(Counts) -> f64| contender.counts.map_or("-".into(), |counts| number(what(counts)));
    let (exits, calls) = (count(|counts| counts.register_exits), count(|counts| counts.calls));
    let (middle, min, max, n) = (number(middle), number(min), number(max), values.len());
    format!("{middle:>8} {min:>8} {max:>8} {ratio:>7} {n:>3} {device:>10} {kicks:>6} {exits:>6} {calls:>6}")
}

fn values(workload: &Workload, contender: &Contender) -> Vec<f64> {
    contender.reports.iter().map(|report| workload.unit.of(report)).collect()
}

/// Whom one of ours is compared with.
fn peer_of<'a>(ours: &Contender, all: &'a [Contender<'a>]) -> Option<&'a Contender<'a>> {
    let fits = |peer: &&Contender| peer.monitor.is_peer && peer.monitor.engine == ours.monitor.engine;
    all.iter().find(fits).filter(|peer| !ours.monitor.is_peer && peer.failure.is_none())
}

/// As many digits as mean something.
fn number(value: f64) -> String {
    let places = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    // Not `-0.00`.
    format!("{:.places$}", if value.abs() < 0.005 { 0.0 } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_shown() {
        assert_eq!(number(1234.6), "1235");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(-0.004), "0.00");
    }
}
