//! What the scanner passes on at each place.

use super::super::stored::StoredPart;
use super::Node;
use crate::json::{JsonPlace, Wants};

impl JsonPlace for Node {
    fn wants(self) -> Wants {
        match self {
            Node::Other | Node::Label | Node::Vectors => Wants::Nothing,
            Node::Count(_)
            | Node::Own(_)
            | Node::Found(_)
            | Node::FoundInList(_)
            | Node::CountValue
            | Node::TokenValue
            | Node::Tokens => Wants::ScalarOrObject,
            Node::MessageId | Node::EventId => Wants::ScalarOrArray,
            Node::Series(_) => Wants::ScalarOrContainer,
            Node::Iteration(_)
            | Node::ToolCount(_)
            | Node::OtherUnit
            | Node::Pointed(_)
            | Node::Stored(StoredPart::Background)
            | Node::Type
            | Node::Error
            | Node::ErrorCode
            | Node::Success
            | Node::IterationType
            | Node::PairName
            | Node::PairValue
            | Node::CountName
            | Node::CacheTtl
            | Node::Index
            | Node::MessageAuthor
            | Node::ClassName
            | Node::MetadataCount(_)
            | Node::MetadataPart(_)
            | Node::CallMark
            | Node::CacheCount => Wants::Scalar,
            Node::Status(_)
            | Node::Usage
            | Node::TotalUsage
            | Node::UsageMetadata
            | Node::Counts
            | Node::ListedCounts
            | Node::MessageUsage
            | Node::PartialMark
            | Node::TokenIds
            | Node::Media
            | Node::Embedding
            | Node::Quoted => Wants::Anything,
            Node::Arguments => Wants::TextOrLength,
            Node::InvocationMetrics
            | Node::Timings
            | Node::Meta
            | Node::BilledUnits
            | Node::InputDetails
            | Node::OutputDetails
            | Node::FoundDetails { .. }
            | Node::Groq
            | Node::Embeddings
            | Node::Statistics
            | Node::CacheCreation
            | Node::CacheDetails
            | Node::Iterations
            | Node::DocumentId
            | Node::ToolUsage
            | Node::Tool
            | Node::Metadata
            | Node::Metrics
            | Node::MetricsPart
            | Node::Errors
            | Node::Cumulative
            | Node::MetadataCounts
            | Node::MessageMetadata
            | Node::Trace
            | Node::TracedCall
            | Node::PromptToken
            | Node::Stored(StoredPart::Around)
            | Node::Verdict
            | Node::Event
            | Node::Way(_) => Wants::Object,
            Node::Stored(StoredPart::Id { .. } | StoredPart::Request | StoredPart::Status) => Wants::Text,
            _ => Wants::Strings,
        }
    }

    // The scanner calls this for each object.
    fn is_document(self) -> bool {
        matches!(self, Node::Root)
    }

    fn only_counts(self) -> bool {
        let has_meaning = matches!(
            self,
            Node::Stored(_) | Node::Status(_) | Node::Root | Node::Quoted | Node::Media | Node::Embedding
        );
        !has_meaning && !self.is_counts()
    }
}
