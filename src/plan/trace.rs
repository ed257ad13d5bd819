//! A profile in the trace event format, which Perfetto (ui.perfetto.dev) and Chromium's `chrome://tracing` open.
//!
//! The format is Google's "Trace Event Format"; used are complete events (`X`), in microseconds, and the names of tracks
//! (`M`). Device and host have clocks of their own that nothing relates: the dispatches are put behind the submission,
//! which is the earliest they can have been. Deliberately absent: writing files, which is the caller's.

use std::fmt::Write;

use super::profile::Profile;

/// The one process of a trace, and its tracks.
const PROCESS: u32 = 1;
const HOST: u32 = 1;
const DEVICE: u32 = 2;

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c < ' ' => {
                write!(out, "\\u{:04x}", c as u32).ok();
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl Profile {
    /// The run as JSON: `std::fs::write("trace.json", profile.trace())`.
    pub fn trace(&self) -> String {
        let mut events: Vec<String> = [(HOST, "host"), (DEVICE, "device")]
            .iter()
            .map(|(track, name)| {
                let name = quoted(name);
                format!(r#"{{"ph":"M","pid":{PROCESS},"tid":{track},"name":"thread_name","args":{{"name":{name}}}}}"#)
            })
            .collect();
        let mut complete = |track: u32, name: &str, start: f64, seconds: f64, args: &[(&str, String)]| {
            let args: Vec<String> = args.iter().map(|(key, value)| format!("{}:{value}", quoted(key))).collect();
            events.push(format!(
                r#"{{"ph":"X","pid":{PROCESS},"tid":{track},"ts":{:.3},"dur":{:.3},"name":{},"args":{{{}}}}}"#,
                start * 1e6,
                seconds * 1e6,
                quoted(name),
                args.join(",")
            ));
        };
        for span in &self.host {
            complete(HOST, span.name, span.start, span.seconds, &[]);
        }
        let submitted = self.host.iter().map(|span| span.start + span.seconds).fold(0.0, f64::max);
        for (index, (line, span)) in self.plan.lines.iter().zip(&self.spans).enumerate() {
            let [x, y, z] = line.grid;
            let computes: Vec<String> = line.computes.iter().map(ToString::to_string).collect();
            let mut args = vec![
                ("dispatch", index.to_string()),
                ("workgroups", quoted(&format!("{x}x{y}x{z}"))),
                ("bytes read", line.read.to_string()),
                ("bytes written", line.written.to_string()),
                ("flops", line.flops.to_string()),
                ("elementwise ops", line.ops.to_string()),
                ("computes", quoted(&computes.join("\n"))),
            ];
            if let Some(share) = self.share(index) {
                args.push(("share of the roofline", format!("{share:.4}")));
            }
            complete(DEVICE, &line.label, submitted + span.start, span.seconds, &args);
        }
        format!("{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n{}\n]}}\n", events.join(",\n"))
    }
}
