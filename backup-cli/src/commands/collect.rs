//! `backup collect`

use backup_core::maintenance::{
    CollectOptions, CollectionPlan, CollectionReport, CollectionState, OpenSession, OpenSessions, PackAmount,
    RepackOptions, RepackPlan, RepackReport,
};
use backup_core::repository::Problem;
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
    if let Some(percent) = arguments.repack {
        return with_repacking(context, arguments, &options, percent);
    }
    let locked = context.locked()?;
    if !arguments.yes {
        let progress = Progress::start(context.output, "looking for what no backup needs");
        let plan = locked.plan_collection(&options, &context.control(&progress))?;
        drop(progress);
        return show_plan(context, &plan, None);
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
    show_report(context, &report, None)
}

/// Repacks and collects, or shows what that would do.
fn with_repacking(
    context: &Context<'_>,
    arguments: &Collect,
    options: &CollectOptions,
    percent: u8,
) -> Result<Exit, Failure> {
    let repository = context.repository()?;
    let repacking = RepackOptions::default().with_below_percent(percent);
    if !arguments.yes {
        let progress = Progress::start(context.output, "looking for what no backup needs");
        let repack = repository.plan_repack(&repacking, &context.control(&progress))?;
        let plan = repository.plan_collection(options, &context.control(&progress))?;
        drop(progress);
        return show_plan(context, &plan, Some(&repack));
    }
    let progress = Progress::start(context.output, "repacking");
    let repack = repository.repack(&repacking, &context.control(&progress))?;
    drop(progress);
    let progress = Progress::start(context.output, "collecting");
    let report = repository.collect(options, &context.control(&progress))?;
    drop(progress);
    show_report(context, &report, Some(&repack))
}

fn packs(amount: &PackAmount) -> String {
    format!("{}, {}", text::count(amount.packs, "pack", "packs"), text::size(amount.bytes))
}

fn show_problems(context: &Context<'_>, problems: &[Problem]) {
    for problem in problems {
        context.output.error_line(&format!("{}: {}", problem.name, problem.message));
    }
}

fn show_plan(context: &Context<'_>, plan: &CollectionPlan, repack: Option<&RepackPlan>) -> Result<Exit, Failure> {
    let problems = repack.map_or(&[][..], |plan| plan.problems.as_slice());
    if context.output.is_json() {
        context.output.json(&json!({"done": false, "plan": plan, "repack": repack}))?;
        return Ok(Exit::complete(problems.is_empty()));
    }
    context.output.text(|out| {
        if let Some(plan) = repack {
            writeln!(out, "replaces {} of {}", packs(&plan.replaced), packs(&plan.needed))?;
            let chunks = text::count(plan.chunks, "chunk", "chunks");
            writeln!(out, "stores   {chunks}, {} anew", text::size(plan.chunk_bytes))?;
            writeln!(out, "commits  {} anew", text::count(plan.backups, "backup", "backups"))?;
            if plan.later.packs > 0 {
                writeln!(out, "replaces {} another time", packs(&plan.later))?;
            }
            writeln!(out, "as long as nothing is replaced, the collection")?;
        }
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
    show_problems(context, problems);
    Ok(Exit::complete(problems.is_empty()))
}

fn show_report(
    context: &Context<'_>,
    report: &CollectionReport,
    repack: Option<&RepackReport>,
) -> Result<Exit, Failure> {
    let problems = repack.map_or(&[][..], |report| report.problems.as_slice());
    let is_complete = report.state == CollectionState::Finished && problems.is_empty();
    if context.output.is_json() {
        context.output.json(&json!({"done": true, "complete": is_complete, "report": report, "repack": repack}))?;
        return Ok(Exit::complete(is_complete));
    }
    if context.output.has_summaries() {
        context.output.text(|out| {
            if let Some(report) = repack {
                let (replaced, written) = (packs(&report.replaced), packs(&report.written));
                let backups = text::count(report.backups.len() as u64, "backup", "backups");
                writeln!(out, "replaced {replaced} by {written} and committed {backups} anew")?;
            }
            report.revoked.iter().try_for_each(|session| writeln!(out, "revoked {}", describe(session)))?;
            let packs = text::count(report.deleted.packs, "pack", "packs");
            let others = text::count(report.deleted_objects, "other object", "other objects");
            writeln!(out, "deleted {packs} ({}) and {others}", text::size(report.deleted.bytes))
        })?;
    }
    for session in &report.waiting_for {
        let way = "run it again when that has ended; --revoke-after 0s gives it up";
        context.output.error_line(&format!("the collection waits for {}: {way}", describe(session)));
    }
    show_problems(context, problems);
    Ok(Exit::complete(is_complete))
}

fn describe(session: &OpenSession) -> String {
    let started = session.started.map_or_else(|| "at an unknown time".to_owned(), text::time);
    format!("session {}, begun {started}", session.session)
}
