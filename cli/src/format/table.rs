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
    use proptest::prelude::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_three_blanks() {
        assert_eq!(
            align("A\tLONGHEADING\tC\nx\ty\tz\n"),
            "A         LONGHEADING   C\nx         y             z\n"
        );
    }

    proptest! {
        #[test]
        fn cells_stay_whole_and_in_columns(
            rows in proptest::collection::vec(
                proptest::collection::vec("[a-zé ]{0,14}", 1..5),
                0..6,
            ),
        ) {
            let text = rows.iter().map(|row| row.join("\t") + "\n").collect::<String>();
            let out = align(&text);
            let lines: Vec<&str> = out.split_terminator('\n').collect();
            prop_assert_eq!(lines.len(), rows.len());
            for (line, row) in lines.iter().zip(&rows) {
                let mut from = 0;
                for (column, cell) in row.iter().enumerate() {
                    let shown: String = line.chars().skip(from).take(cell.chars().count()).collect();
                    prop_assert_eq!(&shown, cell);
                    let others = rows.iter().filter(|other| column + 1 < other.len());
                    from += others.map(|other| (other[column].chars().count() + PADDING).max(MINIMUM)).max().unwrap_or(0);
                }
            }
        }
    }
}
