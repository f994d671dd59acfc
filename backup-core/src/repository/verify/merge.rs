//! Reports of several shards as one.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::repository::verify::report::{Finding, FindingKind, LISTED, LISTED_ENTRIES, VerifyReport};

impl VerifyReport {
    /// Joins the reports of all shards of one count: the report that one verification of everything would have made,
    /// but for the order of what it did. What several shards found is there once.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] where a shard is missing or there twice, for reports of other repositories, levels or
    /// counts, and where backups were made or forgotten between the shards: nobody looked at all of a new one.
    pub fn merge(reports: Vec<Self>) -> Result<Self> {
        let invalid = |reason: String| Error::invalid("reports", reason);
        let mut reports = reports.into_iter();
        let mut whole = reports.next().ok_or_else(|| invalid("there are none".into()))?;
        let first = whole.shard.ok_or_else(|| invalid("one is not of a shard".into()))?;
        let mut found = BTreeSet::from([first.number()]);
        let mut findings = Joined::default();
        findings.add(std::mem::take(&mut whole.findings));
        for report in reports {
            let shard = report.shard.ok_or_else(|| invalid("one is not of a shard".into()))?;
            if shard.count() != first.count() || report.level != whole.level || report.repository != whole.repository {
                return Err(invalid(format!("shard {shard} is of another verification than {first}")));
            }
            if report.history != whole.history {
                let reason = "there were other backups than for";
                return Err(invalid(format!(
                    "for shard {shard} {reason} {first}: name the backups, so that all look at the same"
                )));
            }
            if !found.insert(shard.number()) {
                return Err(invalid(format!("shard {shard} is there twice")));
            }
            whole.ok &= report.ok;
            whole.partial |= report.partial;
            whole.started = whole.started.min(report.started);
            whole.finished = whole.finished.max(report.finished);
            for (sum, part) in [
                (&mut whole.backups_checked, report.backups_checked),
                (&mut whole.objects_checked, report.objects_checked),
                (&mut whole.bytes_checked, report.bytes_checked),
                (&mut whole.chunks_checked, report.chunks_checked),
                (&mut whole.entries_checked, report.entries_checked),
                (&mut whole.findings_omitted, report.findings_omitted),
            ] {
                *sum = sum.saturating_add(part);
            }
            findings.add(report.findings);
            whole.incomplete.extend(report.incomplete);
        }
        whole.incomplete.sort_by_key(|backup| backup.backup);
        if let Some(missing) = (1..=first.count()).find(|number| !found.contains(number)) {
            return Err(invalid(format!("shard {missing}/{} is missing", first.count())));
        }
        let (findings, omitted) = findings.finish();
        whole.findings = findings;
        whole.findings_omitted = whole.findings_omitted.saturating_add(omitted);
        whole.shard = None;
        Ok(whole)
    }
}

/// Findings by what they say.
#[derive(Default)]
struct Joined(BTreeMap<(FindingKind, String, String), Finding>);

impl Joined {
    fn add(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            let key = (finding.kind, finding.object.clone(), finding.message.clone());
            let Some(known) = self.0.get_mut(&key) else {
                self.0.insert(key, finding);
                continue;
            };
            let mut omitted = known.entries_omitted.max(finding.entries_omitted);
            for entry in finding.entries {
                if known.entries.contains(&entry) {
                    continue;
                }
                if known.entries.len() < LISTED_ENTRIES {
                    known.entries.push(entry);
                } else {
                    omitted = omitted.saturating_add(1);
                }
            }
            known.entries_omitted = omitted;
            // Who needs an object is the same for whoever looks.
            if known.backups.is_empty() {
                (known.backups, known.backups_omitted) = (finding.backups, finding.backups_omitted);
            }
        }
    }

    /// In the order of a report, and how many are not listed.
    fn finish(self) -> (Vec<Finding>, u64) {
        let mut findings: Vec<Finding> = self.0.into_values().collect();
        let omitted = crate::length::to_u64(findings.len().saturating_sub(LISTED));
        findings.truncate(LISTED);
        (findings, omitted)
    }
}
