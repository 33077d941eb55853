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
    /// Whether that object is a message of an agent.
    pub(super) is_message: bool,
    /// The characters that were delivered before this member.
    pub(super) before: u64,
    /// Whether the member contains a count that a model may have written.
    pub(super) is_doubtful: bool,
    /// The characters in the earlier members that contain such a count.
    pub(super) doubtful: u64,
}

/// Usage in the open document that a model may have written. Not a part of the document, because documents are
/// moved for each event.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DoubtfulUsage {
    /// Whether it is in a message.
    pub(super) is_in_call: bool,
    /// Whether it is in the messages of an agent.
    pub(super) is_in_messages: bool,
    pub(super) is_in_metadata: bool,
    /// Whether it is in an object in metadata. A server may repeat such an object from the request.
    pub(super) is_in_part: bool,
    /// The characters of the strings in metadata.
    pub(super) metadata: u64,
}

/// The counts of a document in unlisted places, outermost level first.
#[derive(Clone, Debug, Default)]
pub(super) struct FoundCounts {
    levels: Vec<Level>,
    /// The open member with counts that may be one of several breakdowns of one usage.
    breakdown: Option<Breakdown>,
}

/// The counts in lists that one member of an object adds: `per_turn_usage`, `per_model_usage`. Such lists are rare.
#[derive(Clone, Debug)]
struct Breakdown {
    level: u32,
    /// Whether the member's name says that it is a breakdown.
    is_named: bool,
    /// The sum before this member, if there was one.
    before: Option<Box<Tally>>,
    /// What an earlier member of the same object added.
    earlier: Option<Box<Tally>>,
}

/// The counts at one level of the document.
#[derive(Clone, Debug, Default)]
struct Level {
    depth: u32,
    named: Tally,
    /// The sum of the counts in lists, which are rare.
    listed: Option<Box<Tally>>,
    /// Whether a model may have written any of them.
    is_doubtful: bool,
}

impl FoundCounts {
    pub(super) fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

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
            level.listed.get_or_insert_default().add(&one);
        }
    }

    /// Begins a member of an object that may contain a list of counts.
    pub(super) fn begin_breakdown(&mut self, level: u32, is_named: bool) {
        self.end_breakdown();
        let before = self.listed_mut(level).map(|listed| Box::new(*listed));
        let earlier = self.breakdown.take().filter(|breakdown| breakdown.level == level);
        let earlier = earlier.and_then(|breakdown| breakdown.earlier);
        self.breakdown = Some(Breakdown { level, is_named, before, earlier });
    }

    /// Ends that member. If two breakdowns in the same object have added the same counts, both are of one usage,
    /// and only one of them counts.
    fn end_breakdown(&mut self) {
        let Some(mut breakdown) = self.breakdown.take() else { return };
        if let Some(listed) = self.listed_mut(breakdown.level) {
            let before = breakdown.before.as_deref().copied().unwrap_or_default();
            let added = listed.since(&before);
            if !breakdown.is_named {
                // The members report separate work.
            } else if breakdown.earlier.as_ref().is_some_and(|earlier| earlier.usage() == added.usage()) {
                *listed = before;
            } else if !added.is_zero() {
                breakdown.earlier = Some(Box::new(added));
            }
        }
        self.breakdown = Some(breakdown);
    }

    /// Ends the object with those members.
    pub(super) fn close_object(&mut self) {
        self.end_breakdown();
        self.breakdown = None;
    }

    fn listed_mut(&mut self, depth: u32) -> Option<&mut Tally> {
        self.levels.iter_mut().find(|level| level.depth == depth)?.listed.as_deref_mut()
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
        let at = self.levels.iter().position(|level| level.depth >= member.level);
        let mut at = at.unwrap_or(self.levels.len());
        if self.levels.get(at).is_none_or(|level| level.depth != member.level) {
            at = self.insert(at, member.level);
        }
        let level = self.levels.get_mut(at)?;
        level.is_doubtful |= member.may_be_generated;
        Some(level)
    }

    /// Begins a level at this index, unless all levels are in use and further out. Returns its index, or that of
    /// the innermost level.
    #[cold]
    fn insert(&mut self, at: usize, depth: u32) -> usize {
        if at >= MAX_LEVELS {
            return MAX_LEVELS.saturating_sub(1);
        }
        if self.levels.len() == MAX_LEVELS {
            self.join_innermost();
        }
        let at = at.min(self.levels.len());
        self.levels.insert(at, Level { depth, ..Level::default() });
        at
    }

    /// Joins the two innermost levels.
    fn join_innermost(&mut self) {
        if let Some(inner) = self.levels.pop()
            && let Some(outer) = self.levels.last_mut()
        {
            outer.is_doubtful |= inner.is_doubtful;
            outer.named = inner.named.beneath(&outer.named);
            outer.listed = match (inner.listed, outer.listed.take()) {
                (Some(inner), Some(outer)) => Some(Box::new(inner.beneath(&outer))),
                (inner, outer) => outer.or(inner),
            };
        }
    }

    /// Returns the counts of the document, their outermost level, and whether a model may have written them.
    pub(super) fn end_document(&mut self) -> (Tally, u32, bool) {
        self.close_object();
        let counts = joined(&mut self.levels);
        self.levels.clear();
        counts
    }
}

/// Joins the counts of these levels. The counts of a level never replace those of a level further out. They only
/// add what is missing there.
fn joined(levels: &mut [Level]) -> (Tally, u32, bool) {
    let Some((level, inner)) = levels.split_first_mut() else { return <(Tally, u32, bool)>::default() };
    let counts = level.counts();
    if inner.is_empty() || counts.tells_output() && !counts.is_only_total() {
        return (counts, level.depth, level.is_doubtful);
    }
    let (inner, _, inner_is_doubtful) = joined(inner);
    (inner.beneath(&counts), level.depth, level.is_doubtful || inner_is_doubtful)
}

impl Level {
    /// Returns all counts of this level.
    fn counts(&mut self) -> Tally {
        self.named.add_members();
        match &mut self.listed {
            None => self.named,
            Some(listed) => {
                listed.add_parts();
                listed.merge(&self.named);
                **listed
            }
        }
    }
}
