//! Rows and columns: joined by commas, or framed as etcd's tools frame them.

pub struct Table {
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The cells of each row on a line.
    pub fn lines(&self) -> String {
        self.rows.iter().map(|row| row.join(", ") + "\n").collect()
    }

    /// A frame of lines around the cells: titles in capitals and centered, cells to the right.
    pub fn grid(&self) -> String {
        let titles: Vec<_> =
            self.header.iter().map(|title| title.to_uppercase().replace('_', " ")).collect();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([titles[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..titles.len()).map(width).collect();
        let rule = |left: char, cross: &str, right: char| {
            let bars: Vec<_> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
            format!("{left}{}{right}\n", bars.join(cross))
        };
        let line = |cells: &[String], align: fn(&str, usize) -> String| {
            let cells: Vec<_> = cells.iter().zip(&widths).map(|(c, w)| align(c, *w)).collect();
            format!("│ {} │\n", cells.join(" │ "))
        };
        let mut text = rule('┌', "┬", '┐');
        text.push_str(&line(&titles, |cell, width| format!("{cell:^width$}")));
        text.push_str(&rule('├', "┼", '┤'));
        for row in &self.rows {
            text.push_str(&line(row, |cell, width| format!("{cell:>width$}")));
        }
        text + &rule('└', "┴", '┘')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_in_a_frame() {
        let table = Table {
            header: vec!["ID", "Is Learner"],
            rows: vec![vec!["8e9e".into(), "false".into()]],
        };
        let expected = "\
┌──────┬────────────┐
│  ID  │ IS LEARNER │
├──────┼────────────┤
│ 8e9e │      false │
└──────┴────────────┘
";
        assert_eq!(table.grid(), expected);
        assert_eq!(table.lines(), "8e9e, false\n");
    }
}
