//! What each subcommand does.

use std::time::Duration;

use serde_json::Value;

use super::args::{
    Cancel, Command, Filter, ListVnext, Scope, Submit, SubmitWait, SubmitYaml, Workers, WorkersFormat,
};
use super::failed_call::failure_of;
use super::output::{Format, Output};
use super::table::Table;
use super::wait::{Wait, exit_of};
use super::{Ending, params, usage_of, watch, wheel};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::program::message;
use crate::client::{Client, Error, Include, ListQuery, PageQuery, Submission, WorkersQuery};

pub fn run(client: &Client, command: Command, output: &mut Output) -> Result<Exit, Ending> {
    match command {
        Command::Submit(args) => submit(client, &args, output),
        Command::SubmitYaml(args) => submit_yaml(client, &args, output),
        Command::Get { run_id, records } => {
            let include = if records { Include::Records } else { Include::Snapshot };
            output.show(client.get_run(&run_id, include))
        }
        Command::Tasks { run_id, output: Format::Json } => output.show(client.tasks(&run_id)),
        Command::Tasks { run_id, output: Format::Table } => {
            let tasks = client.tasks(&run_id).map_err(failure_of)?;
            output.table(&Table::of_tasks(&tasks))
        }
        Command::List(args) => {
            output.show_list(client.list(&query(&args.filter)), args.output, Table::of_runs)
        }
        Command::ListVnext(args) => list_vnext(client, &args, output),
        Command::Watch(args) => watch::watch(client, &args, output),
        Command::Cancel(args) => cancel(client, &args, output),
        Command::Workers(args) => workers(client, &args, output),
        Command::Wheels(args) => output.show_list(client.wheels(), args.output, wheel::tables::of_wheels),
        Command::WheelHistory(args) => wheel::history(client, &args, output),
        Command::WheelUpload(args) => wheel::upload(client, &args, output),
        Command::WheelDelete(args) => output.show(client.delete_wheel(&args.name)),
        Command::Metrics => {
            output.text(&client.metrics().map_err(failure_of)?)?;
            Ok(Exit::Done)
        }
        Command::Completions { .. } => Ok(Exit::Done),
    }
}

fn submit(client: &Client, args: &Submit, output: &mut Output) -> Result<Exit, Ending> {
    let submission = Submission {
        flow_name: args.flow_name.clone(),
        params: params::merged(args.params_file.as_deref(), args.params.as_deref(), &args.param)?,
        tag: args.tag.clone(),
        tags: args.tags.as_deref().map(listed),
        idempotency_key: args.idempotency_key.clone(),
    };
    let accepted = client.submit(&submission).map_err(failure_of)?;
    after_submit(client, &accepted, &args.wait, output)
}

fn submit_yaml(client: &Client, args: &SubmitYaml, output: &mut Output) -> Result<Exit, Ending> {
    let path = &args.workflow_file;
    let workflow = std::fs::read(path).map_err(|error| {
        Failure::usage(
            format!("cannot read --workflow-file {}: {error}", path.display()),
            usage_of("submit-yaml"),
            "check the path and its permissions",
        )
    })?;
    let key = args.idempotency_key.as_ref();
    let accepted =
        client.submit_yaml(&args.flow_name, Some(&args.tag), &workflow, key).map_err(failure_of)?;
    after_submit(client, &accepted, &args.wait, output)
}

/// The run id goes out before the wait, so that it is known whatever happens then.
fn after_submit(
    client: &Client,
    accepted: &Value,
    args: &SubmitWait,
    output: &mut Output,
) -> Result<Exit, Ending> {
    output.json(accepted)?;
    if !args.wait {
        return Ok(Exit::Done);
    }
    output.finish()?;
    let Some(run_id) = accepted["run_id"].as_str() else {
        return Err(failure_of(Error::BadReply {
            request: "POST /runs".to_owned(),
            reason: "it has no `run_id`".to_owned(),
        })
        .into());
    };
    let timeout = args.timeout_sec.map(Duration::from_secs_f64);
    ended(client, run_id, Wait { timeout, exit_status: args.exit_status }, output)
}

/// Waits for the end of a run and shows it.
fn ended(client: &Client, run_id: &str, wait: Wait, output: &mut Output) -> Result<Exit, Ending> {
    let snapshot = wait.snapshot(client, run_id)?;
    output.json(&snapshot)?;
    Ok(exit_of(&snapshot, wait.exit_status))
}

fn list_vnext(client: &Client, args: &ListVnext, output: &mut Output) -> Result<Exit, Ending> {
    let page = PageQuery {
        updated_after: args.updated_after,
        cursor: args.cursor.clone(),
        workflow_yaml_sha256: args.workflow_yaml_sha256.clone(),
    };
    let runs = client.list_vnext(&query(&args.filter), &page);
    if args.output == Format::Json {
        return output.show(runs);
    }
    let mut runs = runs.map_err(failure_of)?;
    let exit = output.show_list(Ok(runs["items"].take()), Format::Table, Table::of_runs)?;
    if let Some(cursor) = runs["next_cursor"].as_str() {
        output.finish()?;
        message(&format!("more: --cursor {cursor}"));
    }
    Ok(exit)
}

fn cancel(client: &Client, args: &Cancel, output: &mut Output) -> Result<Exit, Ending> {
    let now = client.cancel(&args.run_id, args.reason.as_deref());
    if !args.wait {
        return output.show(now);
    }
    now.map_err(failure_of)?;
    let timeout = Some(Duration::from_secs_f64(args.timeout_sec));
    ended(client, &args.run_id, Wait { timeout, exit_status: args.exit_status }, output)
}

fn workers(client: &Client, args: &Workers, output: &mut Output) -> Result<Exit, Ending> {
    let scope = args.scope.map(|scope| match scope {
        Scope::Active => "active".to_owned(),
        Scope::All => "all".to_owned(),
    });
    let (state, include_hidden, limit) = (args.state.clone(), args.include_hidden, args.limit);
    let answer = client.workers(&WorkersQuery { scope, state, include_hidden, limit });
    match args.output {
        WorkersFormat::Json => output.show(answer),
        WorkersFormat::Plugins => {
            output.show_list(answer, Format::Table, |items, _| Table::of_plugins(items))
        }
        WorkersFormat::Table => output.show_list(answer, Format::Table, Table::of_workers),
    }
}

fn query(filter: &Filter) -> ListQuery {
    ListQuery {
        status: filter.status.clone(),
        flow: filter.flow.clone(),
        tag: filter.tag.clone(),
        full: filter.full,
        limit: filter.limit,
    }
}

/// `a, b` → `a` and `b`; empty ones are slips of the pen.
fn listed(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}
