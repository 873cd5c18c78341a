use super::*;

#[test]
fn phases_are_told_in_their_order_and_once() {
    let timeline = Timeline::new();
    assert!(timeline.marks().is_empty());
    timeline.mark(Phase::Planned);
    std::thread::sleep(Duration::from_millis(5));
    timeline.clone().mark(Phase::Entering);
    let first = timeline.marks();
    timeline.mark(Phase::Planned);
    let phases: Vec<_> = first.iter().map(|(phase, _)| *phase).collect();
    assert_eq!(phases, [Phase::Planned, Phase::Entering]);
    assert!(first[1].1 - first[0].1 >= Duration::from_millis(4), "{first:?}");
    assert!(first[1].1 <= timeline.0.began.elapsed(), "{first:?}");
    assert!(timeline.marks()[0].1 < Duration::from_millis(4), "the second mark does not move the first");
}

#[test]
fn all_phases_have_a_name_of_their_own() {
    let names: std::collections::BTreeSet<_> = Phase::ALL.iter().map(|phase| phase.name()).collect();
    assert_eq!(names.len(), Phase::ALL.len());
}
