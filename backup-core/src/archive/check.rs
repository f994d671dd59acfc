//! What is damaged in an archive, and how much protection is left.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;

use crate::archive::block::{BLOCK, PAYLOAD};
use crate::archive::blocks::{Blocks, Found};
use crate::archive::contents;
use crate::archive::record::Placed;
use crate::error::Result;
use crate::length::to_u64;
use crate::progress::Event;
use crate::repository::Control;
use crate::source::BlockSource;
use crate::storage::Key;

/// Lost objects that are listed.
const LISTED: usize = 1000;

/// The state of an archive.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct ArchiveReport {
    /// The archive's id, in hexadecimal.
    pub archive: String,
    /// Whether everything is as it was written.
    pub ok: bool,
    /// Whether every object can be read, damaged or not.
    pub complete: bool,
    /// Blocks that the archive has.
    pub blocks: u64,
    /// Blocks that are damaged or missing.
    pub lost_blocks: u64,
    /// Blocks that are whole and not where they belong.
    pub moved_blocks: u64,
    /// Blocks among the lost ones that cannot be made anew.
    pub hopeless_blocks: u64,
    /// Stripes that the archive has: blocks that protect each other.
    pub stripes: u64,
    /// Stripes with lost blocks that can be made anew.
    pub damaged_stripes: u64,
    /// Stripes with lost blocks that cannot.
    pub hopeless_stripes: u64,
    /// Blocks of a stripe that may be lost.
    pub parity_blocks: u8,
    /// How many more blocks the worst stripe may lose; 0 where one is beyond repair.
    pub least_left: u8,
    /// Bytes in one piece that may be lost of an archive without damage, wherever they begin.
    pub survives: u64,
    /// Bytes of the file that belong to no block of the archive.
    pub foreign_bytes: u64,
    /// Whole blocks of other archives among them.
    pub foreign_blocks: u64,
    /// Whether the table of contents is there. Without it, lost objects cannot all be named.
    pub has_table: bool,
    /// Objects of the archive.
    pub objects: u64,
    /// Storage keys of objects that are lost, at most the first 1000.
    pub lost_objects: Vec<String>,
    /// Lost objects that are not listed.
    pub lost_objects_omitted: u64,
    /// The same in words.
    pub verdict: String,
}

/// Reads all of the archive in `source`, which errors call `name`, and says what is damaged. Needs no password.
///
/// # Errors
///
/// As [`ArchiveStorage::open`](crate::archive::ArchiveStorage::open); [`Error::Cancelled`](crate::Error::Cancelled). Damage is in
/// the report.
pub fn check(source: Arc<dyn BlockSource>, name: &str, control: &Control) -> Result<ArchiveReport> {
    let blocks = Blocks::open(source, name, control)?;
    let mut survey = Survey::new(&blocks);
    control.event(&Event::Expected { entries: 0, bytes: blocks.geometry().bytes() });
    for group in 0..blocks.geometry().groups() {
        survey.group(&blocks, group, control)?;
    }
    survey.finish(&blocks, control)
}

/// A report in the making.
pub(crate) struct Survey {
    report: ArchiveReport,
    /// Numbers of blocks of data that cannot be made anew, in runs.
    hopeless: Vec<Range<u64>>,
}

impl Survey {
    pub(crate) fn new(blocks: &Blocks) -> Self {
        let geometry = blocks.geometry();
        let report = ArchiveReport {
            archive: blocks.identity.id.iter().map(|byte| format!("{byte:02x}")).collect(),
            blocks: geometry.blocks(),
            stripes: geometry.groups().saturating_mul(u64::from(geometry.depth)),
            parity_blocks: geometry.rows,
            least_left: geometry.rows,
            survives: geometry.promise(),
            ..ArchiveReport::default()
        };
        Self { report, hopeless: Vec::new() }
    }

    /// Looks at every block of a group. Returns the stripes that lack something and whether they can be mended.
    pub(crate) fn group(&mut self, blocks: &Blocks, group: u64, control: &Control) -> Result<Vec<(u8, bool)>> {
        let geometry = blocks.geometry();
        let mut lost: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
        for block in geometry.group(group).blocks() {
            control.cancel().check()?;
            match blocks.find(block)? {
                Found::Here(_) => {}
                Found::Moved(_) => self.report.moved_blocks = self.report.moved_blocks.saturating_add(1),
                Found::Lost => lost.entry(geometry.place(block).stripe).or_default().push(block),
            }
            control.event(&Event::Bytes { count: BLOCK, kind: crate::extent::ExtentKind::Data });
        }
        let mut stripes = Vec::new();
        let mut hopeless = Vec::new();
        for (stripe, lost) in lost {
            let count = to_u64(lost.len());
            self.report.lost_blocks = self.report.lost_blocks.saturating_add(count);
            let left = u64::from(geometry.rows).checked_sub(count);
            let least = left.and_then(|left| u8::try_from(left).ok()).unwrap_or(0);
            self.report.least_left = self.report.least_left.min(least);
            if left.is_some() {
                self.report.damaged_stripes = self.report.damaged_stripes.saturating_add(1);
            } else {
                self.report.hopeless_stripes = self.report.hopeless_stripes.saturating_add(1);
                self.report.hopeless_blocks = self.report.hopeless_blocks.saturating_add(count);
                hopeless.extend(lost.iter().filter_map(|block| geometry.data_of_block(*block)));
            }
            stripes.push((stripe, left.is_some()));
        }
        hopeless.sort_unstable();
        for number in hopeless {
            let next = number.saturating_add(1);
            match self.hopeless.last_mut() {
                Some(run) if run.end == number => run.end = next,
                _ => self.hopeless.push(number..next),
            }
        }
        Ok(stripes)
    }

    /// Says which objects are hurt.
    pub(crate) fn finish(mut self, blocks: &Blocks, control: &Control) -> Result<ArchiveReport> {
        let contents = contents::read(blocks, control)?;
        let mut whole: BTreeMap<&Key, bool> = BTreeMap::new();
        for placed in &contents.records {
            if let Some(key) = &placed.record.key {
                *whole.entry(key).or_default() |= !self.is_hurt(placed);
            }
        }
        let mut report = self.report;
        report.has_table = contents.has_table;
        report.objects = to_u64(whole.len());
        for (key, _) in whole.iter().filter(|(_, whole)| !**whole) {
            if report.lost_objects.len() < LISTED {
                report.lost_objects.push(key.to_string());
            } else {
                report.lost_objects_omitted = report.lost_objects_omitted.saturating_add(1);
            }
        }
        let there = report.blocks.saturating_sub(report.lost_blocks).saturating_mul(BLOCK);
        report.foreign_bytes = blocks.file_length().saturating_sub(there);
        if report.moved_blocks == 0 {
            // Bytes of damaged blocks stand in the place of these.
            report.foreign_bytes = blocks.file_length().saturating_sub(blocks.geometry().bytes());
        }
        report.foreign_blocks = blocks.foreign();
        report.complete = report.has_table && report.lost_objects.is_empty();
        report.ok = report.lost_blocks == 0 && report.moved_blocks == 0 && report.foreign_bytes == 0;
        report.verdict = verdict(&report);
        self.report = ArchiveReport::default();
        Ok(report)
    }

    /// Whether a part of an object cannot be read.
    fn is_hurt(&self, placed: &Placed) -> bool {
        let block = |offset: u64| offset.checked_div(PAYLOAD).unwrap_or_default();
        if placed.record.size == 0 {
            return false;
        }
        let (first, last) = (block(placed.content()), block(placed.end().saturating_sub(1)));
        let next = self.hopeless.partition_point(|run| run.end <= first);
        self.hopeless.get(next).is_some_and(|run| run.start <= last)
    }
}

fn verdict(report: &ArchiveReport) -> String {
    let mib = report.survives >> 20;
    let size = if mib > 0 { format!("{mib} MiB") } else { format!("{} KiB", report.survives >> 10) };
    if report.ok {
        return format!("undamaged; any {size} in one piece may be lost");
    }
    if report.hopeless_blocks == 0 {
        let what = format!(
            "{} of {} blocks are damaged or missing, {} are not where they belong",
            report.lost_blocks, report.blocks, report.moved_blocks
        );
        return format!(
            "{what}; nothing is lost, a repair makes the archive as it was; until then {} of {} more blocks of the worst stripe may be lost",
            report.least_left, report.parity_blocks
        );
    }
    let lost = to_u64(report.lost_objects.len()).saturating_add(report.lost_objects_omitted);
    let unnamed = if report.has_table { "" } else { ", and others perhaps: the table of contents is lost" };
    format!("{} blocks cannot be made anew; {lost} objects are lost{unnamed}", report.hopeless_blocks)
}
