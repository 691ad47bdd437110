//! The example flows, as the pages show them.

use std::path::Path;

use pyoco_server::flow::{FlowEvent, Outcome, PythonExecutor, PythonSettings};
use pyoco_server::model::run::TaskStatus;
use serde_json::json;

use crate::support::flow::{job, start};
use crate::support::python::{V06, V08};
use crate::support::python_flows::{error, plain, started};

/// With the flows of `examples/python`, for each version of pyoco.
fn executors() -> [PythonExecutor; 2] {
    [V08.path(), V06.path()].map(|interpreter| {
        PythonExecutor::new(PythonSettings {
            resolver: Some(format!("{}:resolve_flow", example("flows.py"))),
            ..plain(interpreter)
        })
    })
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/python").join(name);
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_flow_of_the_resolver_counts_words() {
    for executor in executors() {
        let params = json!({"text": "the cat and the caterpillar"});
        let mut run = start(&executor, job("text", None, params));
        assert_eq!(run.finish(), Outcome::Completed, "{:#?}", run.seen);
        let (name, tasks) = started(&run);
        assert_eq!((name, tasks), ("text", vec!["words", "common", "longest", "report"]));
        assert_eq!(run.record("common").output, json!({"word": "the", "times": 2}));
        let report = run.record("report");
        assert_eq!(report.output, json!("most common: the, longest: caterpillar"));
        assert_eq!(report.logs.as_ref().unwrap().stdout, "5 words, 4 different ones\n");

        let mut run = start(&executor, job("text", None, json!({"text": " "})));
        run.finish();
        assert_eq!(error(&run), "the text is empty");
        assert_eq!(run.record("words").state, TaskStatus::Failed);

        let mut run = start(&executor, job("nosuch", None, json!({})));
        assert!(matches!(run.finish(), Outcome::FlowNotFound { .. }));
    }
}

#[test]
fn the_flow_that_waits_can_be_cancelled() {
    for executor in executors() {
        let mut run = start(&executor, job("wait", None, json!({"seconds": 600})));
        run.wait_for(
            |event| matches!(event, FlowEvent::Task { record, .. } if record.state == TaskStatus::Running),
        );
        run.cancel.cancel();
        assert_eq!(run.finish(), Outcome::Cancelled);
        let output = run.record("wait").output.as_str().unwrap().to_owned();
        assert!(output.starts_with("stopped after "), "{output}");
    }
}

#[test]
fn the_document_uses_the_functions_beside_it() {
    let text = std::fs::read_to_string(example("flow.yaml")).unwrap();
    for executor in executors() {
        let mut run = start(&executor, job("quote", Some(&text), json!({})));
        assert_eq!(run.finish(), Outcome::Completed, "{:#?}", run.seen);
        assert_eq!(started(&run), ("quote", vec!["words", "longest", "quote"]));
        assert_eq!(run.record("quote").output, json!("> question"));
    }
}
