//! Columns as Go's tabwriter lays them out for the stock client: at least ten wide, three blanks
//! between, the last column as it is.

const MINIMUM: usize = 10;
const PADDING: usize = 3;

/// Lays out lines whose cells are separated by tabs.
pub(crate) fn align(text: &str) -> String {
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in &rows {
        let padded = row.len().saturating_sub(1);
        for (width, cell) in widths.iter_mut().zip(row.iter().take(padded)) {
            *width = (*width).max((cell.chars().count() + PADDING).max(MINIMUM));
        }
    }
    let mut out = String::new();
    for row in &rows {
        for (index, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if index + 1 < row.len() {
                let width = widths.get(index).copied().unwrap_or(MINIMUM);
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_three_blanks() {
        assert_eq!(
            align("A\tLONGHEADING\tC\nx\ty\tz\n"),
            "A         LONGHEADING   C\nx         y             z\n"
        );
    }
}
