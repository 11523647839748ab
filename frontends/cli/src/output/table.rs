//! Lists: as a table, as JSON lines, or by a template.

use serde_json::{Map, Value};

use super::template::Template;

/// A field of every row: its name in templates and JSON, and its head in tables.
pub type Column = (&'static str, &'static str);

/// What a list prints.
pub struct List<'a> {
    /// Every field that a row has, in the rows' order.
    pub columns: &'a [Column],
    /// The fields of the plain table.
    pub shown: &'a [&'a str],
    pub rows: Vec<Vec<String>>,
}

impl List<'_> {
    /// Prints as `--format` says; without one, as a table.
    pub fn print(&self, format: Option<&str>) -> anyhow::Result<()> {
        super::bytes(self.render(format)?.as_bytes())?;
        Ok(())
    }

    fn render(&self, format: Option<&str>) -> anyhow::Result<String> {
        let format = format.unwrap_or("table").replace("\\t", "\t").replace("\\n", "\n");
        if format == "json" {
            return Ok(self.rows.iter().map(|row| format!("{}\n", self.object(row))).collect());
        }
        if let Some(template) = format.strip_prefix("table") {
            let template = match template.trim_start() {
                "" => self.shown.iter().map(|name| format!("{{{{.{name}}}}}")).collect::<Vec<_>>().join("\t"),
                own => own.to_owned(),
            };
            return self.table(&Template::parse(&template)?);
        }
        let template = Template::parse(&format)?;
        self.rows.iter().map(|row| Ok(format!("{}\n", template.render(&self.object(row))?))).collect()
    }

    fn object(&self, row: &[String]) -> Value {
        let fields = self.columns.iter().zip(row);
        Value::Object(fields.map(|((name, _), text)| ((*name).to_owned(), text.clone().into())).collect::<Map<_, _>>())
    }

    fn table(&self, template: &Template) -> anyhow::Result<String> {
        let heads: Vec<String> = self.columns.iter().map(|(_, head)| (*head).to_owned()).collect();
        for name in template.fields() {
            anyhow::ensure!(self.columns.iter().any(|(n, _)| *n == name), "template: can't evaluate field {name}");
        }
        let lines = std::iter::once(&heads).chain(&self.rows);
        let cells: Vec<Vec<String>> = lines
            .map(|row| Ok(template.render(&self.object(row))?.split('\t').map(str::to_owned).collect()))
            .collect::<anyhow::Result<_>>()?;
        Ok(align(&cells))
    }
}

/// Columns three apart, the last one not padded.
pub fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| lines.iter().filter_map(|l| l.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(|column| width(column).max(7) + 3).collect();
    let mut text = String::new();
    for line in lines {
        let mut padded = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            padded.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> List<'static> {
        List {
            columns: &[("ID", "CONTAINER ID"), ("Names", "NAMES"), ("Extra", "EXTRA")],
            shown: &["ID", "Names"],
            rows: vec![
                vec!["0123456789ab".into(), "web".into(), "x".into()],
                vec!["1".into(), "db".into(), "y".into()],
            ],
        }
    }

    #[test]
    fn a_table_is_aligned() {
        let text = list().render(None).expect("renders");
        assert_eq!(text, "CONTAINER ID   NAMES\n0123456789ab   web\n1              db\n");
        let own = list().render(Some("table {{.Names}}\\t{{.Extra}}")).expect("renders");
        assert_eq!(own, "NAMES     EXTRA\nweb       x\ndb        y\n");
    }

    #[test]
    fn json_and_templates_are_a_line_a_row() {
        let text = list().render(Some("json")).expect("renders");
        assert_eq!(text.lines().next(), Some(r#"{"Extra":"x","ID":"0123456789ab","Names":"web"}"#));
        assert_eq!(list().render(Some("{{.Names}}={{.Extra}}")).expect("renders"), "web=x\ndb=y\n");
        assert!(list().render(Some("{{.Bogus}}")).is_err());
        assert!(list().render(Some("table {{.Bogus}}")).is_err());
    }
}
