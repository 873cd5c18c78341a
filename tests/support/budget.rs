//! Budgets, from the one place where they are written down: the table in SPECIFICATION.md.

const SPECIFICATION: &str = include_str!("../../SPECIFICATION.md");

/// The budget of what the table calls exactly so: the first number of the row's second cell.
pub fn budget(what: &str) -> u64 {
    let rows = SPECIFICATION.lines().filter_map(|line| line.strip_prefix("| "));
    let mut budgets = rows.filter_map(|row| {
        let mut cells = row.split(" | ");
        (cells.next()?.trim() == what).then(|| cells.next()).flatten()
    });
    let cell = budgets.next().unwrap_or_else(|| panic!("SPECIFICATION.md has no row `{what}`"));
    assert!(budgets.next().is_none(), "SPECIFICATION.md has two rows `{what}`");
    number(cell).unwrap_or_else(|| panic!("SPECIFICATION.md: no number for `{what}` in `{cell}`"))
}

/// The number a text begins with; commas set its thousands apart.
pub fn number(text: &str) -> Option<u64> {
    let digits = text.split(' ').next()?.replace(',', "");
    digits.parse().ok()
}

/// Says what was measured, and fails where that is over the budget.
pub fn within(what: &str, measured: u64) {
    let budget = budget(what);
    println!("{what}: {measured}, budget {budget}");
    assert!(measured <= budget, "{what}: {measured} are over the budget of {budget}");
}
