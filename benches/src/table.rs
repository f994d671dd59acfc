//! Tables for people, in Markdown with columns that line up.

/// Rows of cells; the first column is text, the others are numbers.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table as text.
    #[must_use]
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
        let width = |column| self.rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0).max(4);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, width) in widths.iter().enumerate() {
                let text = cell(row, column);
                let padding = " ".repeat(width - text.chars().count());
                let (before, after) = if column == 0 { ("", padding.as_str()) } else { (padding.as_str(), "") };
                out.push_str(&format!("| {before}{text}{after} "));
            }
            out.push_str("|\n");
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let dashes = "-".repeat(width - usize::from(column > 0));
                    out.push_str(&format!("| {dashes}{} ", if column > 0 { ":" } else { "" }));
                }
                out.push_str("|\n");
            }
        }
        out
    }
}

/// Seconds to two digits after the point, more where they are few.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    if seconds < 0.1 { format!("{seconds:.3}") } else { format!("{seconds:.2}") }
}

/// Bytes as MB.
#[must_use]
pub fn megabytes(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / 1e6)
}

/// Bytes as MiB.
#[must_use]
pub fn mebibytes(bytes: u64) -> String {
    format!("{}", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["what", "seconds"]);
        table.push(vec!["a long name".into(), seconds(0.0123)]);
        table.push(vec!["b".into()]);
        let expected = "\
            | what        | seconds |\n\
            | ----------- | ------: |\n\
            | a long name |   0.012 |\n\
            | b           |         |\n";
        assert_eq!(table.render(), expected);
        assert_eq!(
            (megabytes(1_600_000), mebibytes((1 << 20) + 1), seconds(12.345)),
            ("2".into(), "2".into(), "12.35".into())
        );
    }
}
