//! The places of usage, generated text and errors in responses. One table serves all dialects, since their
//! names do not clash. Its rows are in [`crate::providers`]. Rows that several providers share are in
//! `shared.rs`. `tally.rs` combines the counts. Every delivered string counts as generated text unless the
//! table knows that its place contains something else. A place for a name or an id contains text if the
//! string is too long. Counts of tokens in unlisted places are found by their names ([`super::names`]), but
//! never inside generated text.

mod shared;
mod unlisted;
mod wants;

use super::names;
use super::stored::StoredPart;
use super::tally::Field;
use crate::providers::lists;
use crate::table::{self, Member, NameTable};
use unlisted::{aside, by_name, detail, part};

/// A member of a response.
pub(crate) type ResponseMember = Member<Node, Node>;

const LISTS: &[&[ResponseMember]] = lists!(ResponseMember, response, shared::SHARED);
const IN_EVENTS: &[&[ResponseMember]] = lists!(ResponseMember, events, &[]);

static ORDERED: [ResponseMember; table::count(LISTS)] = table::joined(LISTS, (Node::Root, "", Node::Root));
static ORDERED_EVENTS: [ResponseMember; table::count(IN_EVENTS)] =
    table::joined(IN_EVENTS, (Node::Root, "", Node::Root));

/// The members that a provider names, and members with a special meaning in the events of a stream.
static MEMBERS: NameTable<Node, Node> = NameTable::new(&ORDERED);
static EVENTS: NameTable<Node, Node> = NameTable::new(&ORDERED_EVENTS);

/// A place in a document. Arrays are transparent: an element is at the place of its array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Node {
    /// The document itself.
    #[default]
    Root,
    /// A place without generated text, however long it is.
    Other,
    /// Like `Other`: vectors. A response with them contains no generated text.
    Vectors,
    /// Token ids of generated text, or text. Each integer is a token.
    TokenIds,
    /// An image or a recording in base64 or hexadecimal digits, or text.
    Media,
    /// Vectors in an unlisted place, or text. Only numbers are vectors.
    Embedding,
    /// Money, or a part of another count, in an unlisted place. Long strings in it count as text.
    Amount,
    /// A name, an id or the like. A string that is too long for one counts as text.
    Label,
    /// A place that may contain generated text. All strings in it count as text, and its counts are ignored.
    Unknown,
    /// An unknown place next to generated text. All strings in it count as text, and counts are found by
    /// their names.
    Aside,
    /// An unknown place in a list of results. The counts of the results are added up.
    Listed,
    /// SambaStudio's object with generated text and its counts, in such a list.
    ListedValue,
    /// An object that the server builds around generated text. All of it is [`Node::Unknown`], except for usage
    /// and counts.
    Around,
    /// An object with counts in an unlisted place.
    Counts,
    ListedCounts,
    /// Parts of a count in an unlisted place.
    FoundDetails {
        in_list: bool,
    },
    /// A count or an object with counts in metadata. Clients can set metadata too, but only to text.
    MetadataCount(Field),
    MetadataCounts,
    /// A count in an object in metadata. There may be an object for each call of a model.
    MetadataPart(Field),
    /// A string that may contain a whole document.
    Quoted,
    /// Salesforce's object around generated text, next to the provider's own answer without it.
    Generation,
    /// A message in a list, of an agent or its user, and its parts.
    AgentMessage,
    /// The id of a message. If LangChain's JavaScript library serialised the message, its class is here, as a
    /// list of names, and the id is inside the arguments of the constructor.
    MessageId,
    MessageAuthor,
    /// The id of an event that is a message.
    EventId,
    /// The id of the document. It may be the class of a serialised message.
    DocumentId,
    /// A name in the class of a serialised message.
    ClassName,
    MessageMetadata,
    MessageUsage,
    /// Bedrock's trace of an agent, and the part of it about one call of a model.
    Trace,
    TracedCall,
    /// A member that only the events of an agent have. Each of these events reports a call of its own.
    CallMark,
    /// Whether a later event replaces this one.
    PartialMark,
    /// A token of the prompt, in a list of all.
    PromptToken,
    /// The name of a count that has its value in another member of the same object.
    CountName,
    CountValue,
    /// A count whose key says that it counts tokens: `tokens`. If no other member names it, it is a total.
    TokenValue,
    /// Anthropic's list of samplings of one message.
    Iterations,
    /// The request's own metadata. A provider may put an object with counts there.
    Metadata,
    /// Any other member of metadata. Its strings are no generated text, unless a model wrote the metadata.
    MetadataText,
    /// Counts with the name in a separate member.
    Metrics,
    /// A part of metrics. The counts of several parts are added up.
    MetricsPart,
    PairName,
    PairValue,

    // Objects with counts.
    Usage,
    /// The usage of all calls together, next to that of the last one.
    TotalUsage,
    UsageMetadata,
    InvocationMetrics,
    Timings,
    Meta,
    /// `tokens` in usage: a total, or an object with counts.
    Tokens,
    /// Cohere's `billed_units`.
    BilledUnits,
    InputDetails,
    OutputDetails,
    Groq,
    Predictions,
    Embeddings,
    Statistics,
    Results,
    /// Anthropic's cache writes by their lifetime.
    CacheCreation,
    /// Bedrock's cache writes, as a list.
    CacheDetails,
    CacheTtl,
    CacheCount,
    IterationType,
    Iteration(Field),
    /// The usage of each tool in OpenAI's Responses API.
    ToolUsage,
    Tool,
    ToolCount(Field),
    /// A count of tokens, in an object that holds counts.
    Count(Field),
    /// A count of tokens in an unlisted place.
    Found(Field),
    /// A count of tokens in an unlisted place, in a list of results.
    FoundInList(Field),
    /// A count of tokens in an unlisted object of counts, or a list of the counts of several calls.
    Series(Field),
    /// A count of tokens in the document itself, or in one of its parts.
    Own(Field),
    /// A count in a unit other than tokens.
    OtherUnit,

    // The places that a policy's own pointers lead to ([`super::pointed`]).
    /// A step on the way to a value, with the number of the step.
    Way(u16),
    /// A value, with the number of its pointer.
    Pointed(u16),
    /// A part of a background result ([`super::stored`]).
    Stored(StoredPart),

    // Objects with text in them.
    Choices,
    ChoiceMessage,
    Message,
    Delta,
    Response,
    Output,
    Outputs,
    /// An element of a list of outputs.
    OutputItem,
    Candidates,
    CandidateContent,
    Content,
    /// An element of a list of content.
    ContentPart,
    /// Anthropic's `content_block`, Nova's `contentBlockDelta`: an object around text.
    Block,
    ToolCalls,
    Function,
    Audio,
    /// The list of images and embeddings in OpenAI's form, and one element of it.
    Data,
    DataItem,
    /// One part of TGI's stream, and the details of a whole text.
    Token,
    Details,
    /// Generated text, or an object around it.
    Text,
    /// The whole text. In a stream, it follows its parts.
    Whole,
    /// The arguments of a tool call: text, or an object.
    Arguments,
    /// Generated reasoning. Some servers send it under both names.
    Reasoning,
    ReasoningContent,
    /// The same reasoning in parts.
    ReasoningDetails,
    /// Text that some servers send again under another name, and in a list of parts.
    TextAgain,
    TextParts,
    /// The configuration of thinking in the Responses API. Some servers put the thoughts there.
    Thinking,

    // Members that describe the document itself.
    Type,
    Error,
    /// A list of errors, which may be empty.
    Errors,
    /// The code or text of an error. It may mean that there is no error.
    ErrorCode,
    /// The code or word for the outcome of the call, or an object with one.
    Status(StatusKind),
    /// A message for people about the outcome. It describes an error if nothing else was delivered.
    Notice,
    /// A message for people about an error.
    Complaint,
    /// An object that describes the outcome of the call.
    Verdict,
    /// The number of the result that a document belongs to.
    Index,
    /// The name of an event, or Llama API's object for one.
    Event,
    /// Whether the call succeeded.
    Success,
    /// SGLang's counts, next to the whole text so far.
    Cumulative,

    /// Any known object. It is the parent of members that have the same meaning everywhere.
    Anywhere,
}

/// How a status is expressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusKind {
    /// A code. Every code other than those for success means failure.
    Code,
    /// A word. Only some words mean failure.
    Word,
}

impl Node {
    /// Returns the place of `key` in this object, unless [`Node::everyday`] has it. If `events` is set, the
    /// document is a named event, and usage may be inside the event's object.
    #[inline]
    pub(super) fn child(self, key: &[u8], events: bool) -> Node {
        match self {
            Node::Aside | Node::Listed | Node::Counts | Node::ListedCounts => aside(key, self),
            _ => self.listed(key, events),
        }
    }

    /// Returns the place of `key` in an object with a place of its own.
    #[inline(never)]
    fn listed(self, key: &[u8], events: bool) -> Node {
        match self {
            Node::ToolUsage => return Node::Tool,
            Node::Count(field) => return part(field, key).map_or(Node::Other, Node::Count),
            Node::Own(field) => return part(field, key).map_or(Node::Other, Node::Own),
            Node::Found(field) | Node::Series(field) => {
                return part(field, key).map_or(Node::Other, Node::Found);
            }
            Node::FoundInList(field) => return part(field, key).map_or(Node::Other, Node::FoundInList),
            Node::FoundDetails { in_list } => {
                return match detail(key) {
                    Node::Count(field) if in_list => Node::FoundInList(field),
                    Node::Count(field) => Node::Found(field),
                    _ => Node::Other,
                };
            }
            Node::CountValue | Node::TokenValue => return aside(key, Node::ListedCounts),
            Node::Errors => return Node::Error,
            Node::Unknown if matches!(key, b"base64" | b"b64_json") => return Node::Media,
            Node::MetadataText => return names::field(key, false).map_or(self, Node::MetadataPart),
            Node::Unknown | Node::Embedding | Node::Amount => return self,
            Node::Around if names::is_named_usage(key) => return Node::ListedCounts,
            Node::Around => return names::field(key, false).map_or(Node::Unknown, Node::FoundInList),
            Node::DataItem => return Node::Data.child_of_item(key),
            // The server builds the elements. An object in place of the list may come from the model.
            Node::ContentPart => {
                return match Node::Content.listed(key, events) {
                    Node::Unknown if names::is_named_usage(key) => Node::ListedCounts,
                    known => known,
                };
            }
            Node::OutputItem => {
                return match Node::Outputs.listed(key, events) {
                    Node::Unknown if names::is_named_usage(key) => Node::ListedCounts,
                    Node::Unknown => names::field(key, false).map_or(Node::Unknown, Node::FoundInList),
                    known => known,
                };
            }
            Node::Metadata if names::is_usage(key) => return Node::MetadataCounts,
            Node::MetadataCounts => return aside(key, Node::Counts),
            Node::Metadata => {
                return names::field(key, false).map_or(Node::MetadataText, Node::MetadataCount);
            }
            Node::MessageUsage | Node::TotalUsage => return Node::Usage.child(key, false),
            // Only a server of streams builds this object. In a single document, a model may have written it.
            Node::Event if !events => return aside(key, Node::Aside),
            Node::MessageMetadata if names::is_usage(key) => return Node::MessageUsage,
            Node::Quoted => return aside(key, Node::Aside),
            Node::Media => return aside(key, Node::Media),
            Node::Trace if key == b"trace" || key.ends_with(b"Trace") => return Node::Trace,
            Node::Message | Node::Delta | Node::Response if events => {
                if let Some(node) = EVENTS.find(self, key) {
                    return node;
                }
            }
            _ => {}
        }
        if let Some(node) = MEMBERS.find(self, key) {
            return node;
        }
        match self {
            Node::Root => match anywhere(key) {
                Node::Unknown => aside(key, Node::Aside),
                known => known,
            },
            Node::Response => match Node::Root.child(key, false) {
                Node::Usage | Node::UsageMetadata => Node::Counts,
                Node::Own(field) => Node::Found(field),
                // Only the document itself has these.
                Node::Type | Node::Error | Node::Errors | Node::ErrorCode | Node::Success | Node::Verdict => {
                    Node::Other
                }
                Node::Status(StatusKind::Word) | Node::Index | Node::Event => Node::Label,
                Node::Status(StatusKind::Code) | Node::Notice | Node::Complaint => Node::Aside,
                node => node,
            },
            Node::Usage | Node::Meta => by_name(key),
            Node::Tokens | Node::UsageMetadata => names::field(key, true).map_or(Node::Other, Node::Count),
            Node::InputDetails | Node::OutputDetails => detail(key),
            Node::Iterations => match Node::Usage.child(key, false) {
                Node::Count(field) => Node::Iteration(field),
                _ => Node::Other,
            },
            Node::Tool => match Node::Usage.child(key, false) {
                Node::Count(field) => Node::ToolCount(field),
                _ => Node::Other,
            },
            Node::Cumulative => match aside(key, Node::Aside) {
                found @ (Node::Found(_) | Node::Series(_) | Node::Counts) => found,
                _ => Node::Other,
            },
            Node::Metrics => match aside(key, Node::Aside) {
                Node::Found(field) | Node::Series(field) => Node::Series(field),
                Node::Counts => Node::Counts,
                Node::Aside => Node::MetricsPart,
                _ => Node::Other,
            },
            Node::MetricsPart => match aside(key, Node::Listed) {
                found @ (Node::FoundInList(_) | Node::ListedCounts) => found,
                Node::Listed => Node::MetricsPart,
                _ => Node::Other,
            },
            Node::Verdict
            | Node::Status(_)
            | Node::InvocationMetrics
            | Node::Timings
            | Node::BilledUnits
            | Node::CacheCreation
            | Node::CacheDetails
            | Node::MessageMetadata
            | Node::Trace
            | Node::TracedCall
            | Node::PromptToken
            | Node::DocumentId
            | Node::Groq
            | Node::Embeddings
            | Node::Statistics => Node::Other,
            Node::Event => match Node::Root.child(key, events) {
                known @ (Node::Usage
                | Node::Message
                | Node::Delta
                | Node::Block
                | Node::Counts
                | Node::Metadata) => known,
                _ => Node::Unknown,
            },
            _ => self.text(key),
        }
    }

    /// Returns the place of `key` in an element of this list.
    fn child_of_item(self, key: &[u8]) -> Node {
        match (MEMBERS.find(self, key), anywhere(key)) {
            (Some(node), _) => node,
            (None, Node::Unknown) => aside(key, Node::Listed),
            (None, known) => known,
        }
    }

    /// Returns the place of an unlisted member in an object that contains generated text.
    fn text(self, key: &[u8]) -> Node {
        match (self, anywhere(key)) {
            // If text is an object, its members are text as well.
            (
                Node::Text
                | Node::TextAgain
                | Node::TextParts
                | Node::Whole
                | Node::Reasoning
                | Node::ReasoningContent
                | Node::ReasoningDetails,
                Node::Unknown,
            ) => self,
            // The server builds these objects, so neither a model nor a client has written their keys.
            (Node::Choices | Node::ChoiceMessage | Node::Candidates | Node::Predictions, Node::Unknown)
                if names::is_named_usage(key) =>
            {
                Node::ListedCounts
            }
            (Node::Message | Node::Delta | Node::Output, Node::Unknown) if names::is_named_usage(key) => {
                Node::Counts
            }
            (Node::AgentMessage, Node::Unknown) if names::is_named_usage(key) => Node::MessageUsage,
            (Node::Results, Node::Unknown) => aside(key, Node::Listed),
            (Node::Data | Node::Details, Node::Unknown) => aside(key, Node::Aside),
            (_, known) => known,
        }
    }

    /// Returns the place of a member that nearly every event contains. These members make up half of a
    /// stream's keys, so they are tried first.
    #[inline(always)]
    pub(super) fn everyday(self, key: &[u8]) -> Option<Node> {
        let label = match key.len() {
            2 if matches!(self, Node::Root) && key == b"id" => return Some(Node::DocumentId),
            2 => key == b"id",
            4 if matches!(self, Node::Delta) && key == b"text" => return Some(Node::Text),
            4 if matches!(self, Node::Root) && key == b"type" => return Some(Node::Type),
            4 => key == b"role" || key == b"type",
            5 if matches!(self, Node::Root) && key == b"delta" => return Some(Node::Delta),
            5 if matches!(self, Node::Choices) && key == b"delta" => return Some(Node::ChoiceMessage),
            5 if matches!(self, Node::Root) && key == b"index" => return Some(Node::Index),
            5 => key == b"index" || key == b"model",
            6 => key == b"object",
            7 if matches!(self, Node::Root) && key == b"choices" => return Some(Node::Choices),
            7 if matches!(self, Node::ChoiceMessage) && key == b"content" => return Some(Node::Content),
            7 => key == b"created",
            8 if key == b"logprobs" && self.has_labels() => return Some(Node::Other),
            12 => key == b"service_tier",
            13 => key == b"finish_reason",
            18 => key == b"system_fingerprint",
            _ => false,
        };
        (label && self.has_labels()).then_some(Node::Label)
    }

    /// Returns whether members of this object that have the name of a label are labels.
    fn has_labels(self) -> bool {
        !matches!(
            self,
            Node::Unknown
                | Node::Around
                | Node::Aside
                | Node::Listed
                | Node::Counts
                | Node::ListedCounts
                | Node::Iterations
                | Node::AgentMessage
                | Node::Amount
                | Node::MetadataText
        )
    }

    /// Returns whether this is an object of counts that belong to the object around it, or a part of one.
    pub(super) fn belongs_to_counts(self) -> bool {
        matches!(
            self,
            Node::Count(_)
                | Node::Own(_)
                | Node::InputDetails
                | Node::OutputDetails
                | Node::CacheDetails
                | Node::CacheCreation
                | Node::MessageMetadata
                | Node::MessageUsage
                | Node::PromptToken
                | Node::Counts
                | Node::ListedCounts
                | Node::MetadataCounts
                | Node::Found(_)
                | Node::FoundInList(_)
                | Node::Series(_)
                | Node::FoundDetails { .. }
                | Node::CountValue
                | Node::TokenValue
        )
    }

    /// Returns whether this is an unlisted count, or an object with such counts.
    pub(super) fn leads_to_counts(self) -> bool {
        matches!(
            self,
            Node::Found(_)
                | Node::FoundInList(_)
                | Node::Series(_)
                | Node::FoundDetails { .. }
                | Node::Counts
                | Node::ListedCounts
                | Node::MetadataCount(_)
                | Node::MetadataPart(_)
                | Node::MetadataCounts
                | Node::MessageMetadata
                | Node::MessageUsage
                | Node::PromptToken
                | Node::PairName
                | Node::PairValue
                | Node::CountName
                | Node::CountValue
                | Node::TokenValue
        )
    }

    /// Returns the level of the counts in this object, which is `depth` objects deep. The results in a list
    /// are at the level of the list. Metadata of the whole document are at the level of the document.
    pub(super) fn level(self, depth: u32) -> u32 {
        if matches!(self, Node::Results | Node::Meta) { depth.saturating_sub(1) } else { depth }
    }

    /// Returns whether a model may have written the members of this object, which is `depth` objects deep.
    pub(super) fn may_be_generated(self, depth: u32) -> bool {
        let is_of_server = matches!(
            self,
            Node::Root
                | Node::Metadata
                | Node::Metrics
                | Node::MetricsPart
                | Node::Cumulative
                | Node::Usage
                | Node::Meta
        );
        // The server itself lists messages in a member of the document.
        depth > 3 || depth > 1 && !is_of_server && !(depth == 2 && self == Node::AgentMessage)
    }

    /// Returns whether this is an object of counts, or a string that contains one.
    pub(super) fn is_counts(self) -> bool {
        matches!(
            self,
            Node::Usage
                | Node::TotalUsage
                | Node::UsageMetadata
                | Node::Counts
                | Node::ListedCounts
                | Node::MessageUsage
        )
    }

    /// Returns whether this is a count of tokens that a provider may send as a number or as text.
    pub(super) fn is_count(self) -> bool {
        matches!(
            self,
            Node::Count(_)
                | Node::Own(_)
                | Node::Found(_)
                | Node::FoundInList(_)
                | Node::Series(_)
                | Node::Iteration(_)
                | Node::ToolCount(_)
                | Node::PairValue
                | Node::CountValue
                | Node::TokenValue
                | Node::Tokens
                | Node::CacheCount
        )
    }

    /// Returns the place of an array's element.
    pub(super) fn element(self) -> Node {
        match self {
            Node::Aside => Node::Listed,
            Node::Counts | Node::Usage | Node::TotalUsage => Node::ListedCounts,
            Node::Data => Node::DataItem,
            Node::Outputs => Node::OutputItem,
            Node::Content => Node::ContentPart,
            Node::Generation => Node::Listed,
            Node::Series(field) => Node::FoundInList(field),
            Node::Errors => Node::Error,
            Node::MessageId => Node::MessageAuthor,
            Node::EventId | Node::DocumentId => Node::ClassName,
            node => node,
        }
    }

    /// Returns whether an object at this place begins a new report of usage.
    pub(super) fn is_marked(self) -> bool {
        matches!(
            self,
            Node::Usage
                | Node::TotalUsage
                | Node::UsageMetadata
                | Node::InvocationMetrics
                | Node::Timings
                | Node::Meta
                | Node::Cumulative
                | Node::MessageUsage
        )
    }
}

/// Returns the place of a member with the same meaning in all known objects.
fn anywhere(key: &[u8]) -> Node {
    match MEMBERS.find(Node::Anywhere, key) {
        Some(node) => node,
        None if is_label(key) => Node::Label,
        None => Node::Unknown,
    }
}

/// Returns whether a member's name looks like that of an id or a time.
fn is_label(key: &[u8]) -> bool {
    [&b"_id"[..], b"Id", b"_at", b"Time", b"_type"].iter().any(|end| key.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_leads_to_one_place() {
        for table in [&MEMBERS, &EVENTS] {
            for (parent, name, node) in table.members() {
                assert_eq!(
                    table.find(*parent, name.as_bytes()),
                    Some(*node),
                    "{parent:?}: {name} is declared twice"
                );
            }
        }
    }
}
