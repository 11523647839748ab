//! The part of Go's templates that people use with docker: `{{.A.B}}`, `{{json .A}}`, `{{.}}`, and text around them.

use serde_json::Value;

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field { path: Vec<String>, json: bool },
}

/// A parsed template.
#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

impl Template {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            let (before, after) = rest.split_at(start);
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let end = after.find("}}").ok_or_else(|| anyhow::anyhow!("template parsing error: unclosed action"))?;
            parts.push(field(after.get(2..end).unwrap_or_default().trim())?);
            rest = after.get(end + 2..).unwrap_or_default();
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// The template with the values of `value` in it.
    pub fn render(&self, value: &Value) -> anyhow::Result<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Field { path, json } => {
                    let found = look_up(value, path)?;
                    text.push_str(&if *json { found.to_string() } else { plain(found) });
                }
            }
        }
        Ok(text)
    }

    /// The names of the fields shown, for a table's head.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field { path, .. } => path.last().map(String::as_str),
            Part::Text(_) => None,
        })
    }
}

fn look_up<'a>(value: &'a Value, path: &[String]) -> anyhow::Result<&'a Value> {
    let step = |found: &'a Value, name: &String| {
        let next = found.get(name);
        next.ok_or_else(|| anyhow::anyhow!("template: can't evaluate field {name} in .{}", path.join(".")))
    };
    path.iter().try_fold(value, step)
}

fn field(action: &str) -> anyhow::Result<Part> {
    let (json, path) = match action.strip_prefix("json ") {
        Some(path) => (true, path.trim()),
        None => (false, action),
    };
    let names = path.strip_prefix('.').filter(|names| {
        names.is_empty()
            || names.split('.').all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
    });
    let names = names.ok_or_else(|| {
        anyhow::anyhow!(
            "template parsing error: {{{{{action}}}}} is not supported, only {{{{.Field}}}} and {{{{json .Field}}}}"
        )
    })?;
    Ok(Part::Field { path: names.split('.').filter(|n| !n.is_empty()).map(str::to_owned).collect(), json })
}

/// As Go prints values.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let items: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect();
            format!("map[{}]", items.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(template: &str) -> Result<String, String> {
        let value = json!({"A": {"B": "text", "N": 3, "T": true}, "L": ["x", 1], "Z": null});
        Template::parse(template).and_then(|t| t.render(&value)).map_err(|e| e.to_string())
    }

    #[test]
    fn fields_and_text() {
        for (template, text) in [
            ("", ""),
            ("plain", "plain"),
            ("{{.A.B}}", "text"),
            ("<{{ .A.N }}|{{.A.T}}>", "<3|true>"),
            ("{{json .A.B}}", "\"text\""),
            ("{{json .L}}", "[\"x\",1]"),
            ("{{.L}} {{.Z}}", "[x 1] <no value>"),
            ("{{.A}}", "map[B:text N:3 T:true]"),
        ] {
            assert_eq!(render(template).as_deref(), Ok(text), "{template}");
        }
        assert!(render("{{json .}}").expect("renders").starts_with("{\"A\":"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for template in ["{{", "{{.A", "{{if .A}}x{{end}}", "{{.Missing}}", "{{A}}", "{{.A..B}}", "{{.A.B.C}}", "{{}}"]
        {
            assert!(render(template).is_err(), "{template}");
        }
    }
}
