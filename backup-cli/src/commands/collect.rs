//! `backup collect`

use backup_core::maintenance::{
    CollectOptions, CollectionPlan, CollectionReport, CollectionState, OpenSession, OpenSessions,
};
use serde_json::json;

use crate::arguments::Collect;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::progress::Progress;
use crate::output::text;
use crate::password::maintenance_key;

pub(crate) fn run(context: &Context<'_>, arguments: &Collect) -> Result<Exit, Failure> {
    let sessions = match arguments.revoke_after.is_zero() {
        true => OpenSessions::RevokeAll,
        false => OpenSessions::RevokeOlderThan(arguments.revoke_after),
    };
    let options = CollectOptions::default()
        .with_open_sessions(sessions)
        .with_despite_damage(arguments.despite_damage)
        .with_partial_history(arguments.partial_history);
    let locked = context.locked()?;
    if !arguments.yes {
        let progress = Progress::start(context.output, "looking for what no backup needs");
        let plan = locked.plan_collection(&options, &context.control(&progress))?;
        drop(progress);
        return show_plan(context, &plan);
    }
    let report = match &arguments.maintenance.maintenance_key_file {
        Some(path) => {
            let key = maintenance_key(path, context.output)?;
            let progress = Progress::start(context.output, "collecting");
            locked.collect(&key, &options, &context.control(&progress))?
        }
        None => {
            let repository = context.repository()?;
            let progress = Progress::start(context.output, "collecting");
            repository.collect(&options, &context.control(&progress))?
        }
    };
    show_report(context, &report)
}

fn show_plan(context: &Context<'_>, plan: &CollectionPlan) -> Result<Exit, Failure> {
    if context.output.is_json() {
        context.output.json(&json!({"done": false, "plan": plan}))?;
        return Ok(Exit::Fine);
    }
    context.output.text(|out| {
        let packs = |amount: &backup_core::maintenance::PackAmount| {
            format!("{}, {}", text::count(amount.packs, "pack", "packs"), text::size(amount.bytes))
        };
        if plan.continues {
            writeln!(out, "collection {} has begun and is to be continued", plan.number)?;
        }
        writeln!(out, "keeps    {} of {}", packs(&plan.live), text::count(plan.backups, "backup", "backups"))?;
        writeln!(out, "deletes  {}", packs(&plan.dead))?;
        if plan.later.packs > 0 {
            writeln!(out, "later    {}", packs(&plan.later))?;
        }
        plan.open_sessions.iter().try_for_each(|session| {
            let verb = if session.is_revocable { "revokes" } else { "waits for" };
            writeln!(out, "{verb} {}", describe(session))
        })?;
        writeln!(out, "nothing was changed; --yes collects")
    })?;
    Ok(Exit::Fine)
}

fn show_report(context: &Context<'_>, report: &CollectionReport) -> Result<Exit, Failure> {
    let is_finished = report.state == CollectionState::Finished;
    if context.output.is_json() {
        context.output.json(&json!({"done": true, "complete": is_finished, "report": report}))?;
        return Ok(Exit::complete(is_finished));
    }
    if context.output.has_summaries() {
        context.output.text(|out| {
            report.revoked.iter().try_for_each(|session| writeln!(out, "revoked {}", describe(session)))?;
            let packs = text::count(report.deleted.packs, "pack", "packs");
            let others = text::count(report.deleted_objects, "other object", "other objects");
            writeln!(out, "deleted {packs} ({}) and {others}", text::size(report.deleted.bytes))
        })?;
    }
    for session in &report.waiting_for {
        context.output.error_line(&format!("the collection waits for {}", describe(session)));
    }
    Ok(Exit::complete(is_finished))
}

fn describe(session: &OpenSession) -> String {
    let started = session.started.map_or_else(|| "at an unknown time".to_owned(), text::time);
    format!("session {}, begun {started}", session.session)
}
