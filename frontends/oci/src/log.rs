//! Messages in runc's shapes: engines read the last error line of the log file.

use std::fs::File;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::{Cli, LogFormat};

/// Where messages go.
#[derive(Debug)]
pub struct Log {
    file: Option<File>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    /// # Errors
    /// When the file cannot be opened.
    pub fn new(cli: &Cli) -> std::io::Result<Self> {
        let open = |path: &std::path::PathBuf| File::options().create(true).append(true).open(path);
        let file = cli.log.as_ref().map(open).transpose()?;
        Ok(Self { file, format: cli.log_format, debug: cli.debug })
    }

    /// Also to the standard error, for whoever reads there.
    pub fn error(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() {
            eprintln!("dewar-oci: {message}");
        }
    }

    pub fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
        }
    }

    fn write(&self, level: &str, message: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = dewar_runtime::oci::rfc3339(now.as_secs(), now.subsec_nanos());
        let line = match self.format {
            LogFormat::Json => serde_json::json!({"level": level, "msg": message, "time": time}).to_string(),
            LogFormat::Text => {
                let quoted = serde_json::Value::from(message);
                format!("time=\"{time}\" level={level} msg={quoted}")
            }
        };
        let written = match &mut self.file.as_ref() {
            Some(file) => writeln!(file, "{line}"),
            None => writeln!(std::io::stderr(), "{line}"),
        };
        if let Err(error) = written {
            eprintln!("dewar-oci: cannot write the log: {error}: {message}");
        }
    }
}
