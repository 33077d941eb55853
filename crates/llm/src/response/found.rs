//! Counts in unlisted places. A model may have written them, as a part of its answer.

use super::tally::{Field, Tally};

/// The number of levels of a document with counts that are kept apart.
const MAX_LEVELS: usize = 4;

/// The place of the next count in an unlisted place, and the text around it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OpenMember {
    /// The number of open objects. Objects of counts do not add to it.
    pub(super) depth: u32,
    /// The depth of the object that contains the next count, or contains the object with the count.
    pub(super) level: u32,
    /// Whether a model may have written that object.
    pub(super) may_be_generated: bool,
    /// The characters that were delivered before this member.
    pub(super) before: u64,
    /// Whether the member contains a count that a model may have written.
    pub(super) is_doubtful: bool,
    /// The characters in the earlier members that contain such a count.
    pub(super) doubtful: u64,
}

/// The counts of a document in unlisted places, outermost level first.
#[derive(Clone, Debug, Default)]
pub(super) struct FoundCounts {
    levels: Vec<Level>,
}

/// The counts at one level of the document.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    depth: u32,
    named: Tally,
    /// The sum of the counts in lists.
    listed: Tally,
    /// Whether a model may have written any of them.
    is_doubtful: bool,
}

impl FoundCounts {
    pub(super) fn set(&mut self, member: &mut OpenMember, field: Field, value: u64) {
        if let Some(level) = self.level(member) {
            level.named.set(field, value);
        }
    }

    /// Adds a count of one of several results in a list.
    pub(super) fn add(&mut self, member: &mut OpenMember, field: Field, value: u64) {
        let mut one = Tally::default();
        one.set(field, value);
        if let Some(level) = self.level(member) {
            level.listed.add(&one);
        }
    }

    /// Ends an object that stands for a count.
    pub(super) fn close_parts(&mut self, member: &OpenMember, field: Field) {
        if let Some(level) = self.levels.iter_mut().find(|level| level.depth == member.level) {
            level.named.close_parts(field);
        }
    }

    /// Returns the level of the next count, after marking the member if a model may have written the count.
    fn level(&mut self, member: &mut OpenMember) -> Option<&mut Level> {
        member.is_doubtful |= member.may_be_generated;
        let at = match self.levels.binary_search_by_key(&member.level, |level| level.depth) {
            Ok(at) => at,
            Err(at) if at < MAX_LEVELS => {
                if self.levels.len() == MAX_LEVELS {
                    self.join_innermost();
                }
                let at = at.min(self.levels.len());
                self.levels.insert(at, Level { depth: member.level, ..Level::default() });
                at
            }
            Err(_) => MAX_LEVELS.saturating_sub(1),
        };
        let level = self.levels.get_mut(at)?;
        level.is_doubtful |= member.may_be_generated;
        Some(level)
    }

    /// Joins the two innermost levels.
    fn join_innermost(&mut self) {
        if let Some(inner) = self.levels.pop()
            && let Some(outer) = self.levels.last_mut()
        {
            outer.is_doubtful |= inner.is_doubtful;
            outer.named = inner.named.beneath(&outer.named);
            outer.listed = inner.listed.beneath(&outer.listed);
        }
    }

    /// Returns the counts of the document, their outermost level, and whether a model may have written them.
    /// The counts of a level never replace those of a level further out. They only add what is missing there.
    pub(super) fn end_document(&mut self) -> (Tally, u32, bool) {
        let levels = self.levels.drain(..).rev();
        levels.fold((Tally::default(), 0, false), |(inner, _, inner_is_doubtful), level| {
            let (mut all, mut named) = (level.listed, level.named);
            all.add_parts();
            named.add_members();
            all.merge(&named);
            match all.tells_output() && !all.is_only_total() {
                true => (all, level.depth, level.is_doubtful),
                false => (inner.beneath(&all), level.depth, level.is_doubtful || inner_is_doubtful),
            }
        })
    }
}
