//! Writes Prometheus' text format 0.0.4.

use std::fmt::Write;

use super::histogram::Histogram;

#[derive(Default)]
pub(crate) struct Text(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

pub(crate) struct Family<'t> {
    text: &'t mut String,
    name: &'static str,
}

impl Text {
    /// Begins a metric; all its samples belong here, together.
    pub(crate) fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        put(&mut self.0, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { text: &mut self.0, name }
    }

    pub(crate) fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help).sample(&[], value);
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, None, value);
    }

    pub(crate) fn histogram<const N: usize>(&mut self, labels: &[(&str, &str)], histogram: &Histogram<N>) {
        for (bound, count) in histogram.cumulated() {
            self.line("_bucket", labels, Some(bound), count as f64);
        }
        self.line("_bucket", labels, Some(f64::INFINITY), histogram.count as f64);
        self.line("_sum", labels, None, histogram.sum);
        self.line("_count", labels, None, histogram.count as f64);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<f64>, value: f64) {
        let mut pairs: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        pairs.extend(bound.map(|bound| format!("le=\"{}\"", number(bound))));
        let pairs = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
        put(self.text, format_args!("{}{suffix}{pairs} {}\n", self.name, number(value)));
    }
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(arguments);
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Rust writes `inf`, Prometheus reads `+Inf`.
fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn samples_are_written_as_prometheus_reads_them() {
        let mut text = Text::default();
        text.single("a_total", Kind::Counter, "one\\two\nthree", 3.0);
        text.family("b", Kind::Gauge, "h").sample(&[("x", "q\"\\\n"), ("y", "é")], 0.5);
        let mut histogram = Histogram::new(&[0.1, 1.0]);
        histogram.observe(Duration::from_millis(500));
        text.family("c_seconds", Kind::Histogram, "h").histogram(&[("r", "/")], &histogram);
        assert_eq!(
            text.finish(),
            "# HELP a_total one\\\\two\\nthree\n# TYPE a_total counter\na_total 3\n\
             # HELP b h\n# TYPE b gauge\nb{x=\"q\\\"\\\\\\n\",y=\"é\"} 0.5\n\
             # HELP c_seconds h\n# TYPE c_seconds histogram\n\
             c_seconds_bucket{r=\"/\",le=\"0.1\"} 0\nc_seconds_bucket{r=\"/\",le=\"1\"} 1\n\
             c_seconds_bucket{r=\"/\",le=\"+Inf\"} 1\nc_seconds_sum{r=\"/\"} 0.5\n\
             c_seconds_count{r=\"/\"} 1\n"
        );
    }
}
