//! Counts the images and files in a body. It waits until their type is known, because the keys of a part may
//! come in any order.

use super::super::image::SizedImages;
use super::super::media::{Files, Found, REFERENCE_TOKENS, Type, judge};
use super::super::open::Open;
use super::super::place::Media;
use super::{CONTEXT_TOKENS, Gather, TAG};
use crate::json::Reader as _;

/// The parts of a message that determine the type of its files.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MessagePart {
    /// Whether it is declared as an image.
    pub(super) image: bool,
    /// Whether it contained an image.
    pub(super) has_image: bool,
    /// Files without a known type.
    pub(super) files: Files,
}

impl Gather {
    /// Ends the body, complete or not. Open parts are counted.
    pub(in super::super) fn finish(&mut self) {
        if let Some(place) = self.open.place {
            self.close_text(place);
        }
        self.end_file();
        self.end_part();
    }

    /// Ends the open file.
    pub(super) fn end_file(&mut self) {
        let file = std::mem::take(&mut self.file);
        if file.is_typed() {
            self.part.has_image |= self.add_files(file);
        } else {
            self.part.files.add(file);
        }
    }

    /// Ends the open part.
    pub(super) fn end_part(&mut self) {
        let mut part = std::mem::take(&mut self.part);
        if part.image && part.files.is_empty() && !part.has_image {
            self.images = self.images.saturating_add(1);
        }
        if part.image {
            part.files.say(Some(Type::Image));
        }
        self.add_files(part.files);
    }

    /// Adds files. Returns whether one of them is an image.
    pub(super) fn add_files(&mut self, files: Files) -> bool {
        let cost = files.cost();
        self.images = self.images.saturating_add(cost.images);
        self.sized.add(cost.sized);
        self.add_tokens(cost.tokens);
        self.tally.add_text(cost.characters);
        cost.images > 0 || cost.sized.count > 0
    }

    pub(super) fn part_type(&mut self) {
        match self.open.word() {
            b"image" | b"image_url" | b"input_image" => self.part.image = true,
            b"input_audio" | b"audio" | b"audio_url" | b"video" | b"video_url" => {
                self.part.files.say(Some(Type::Recording));
            }
            b"item_reference" => self.add_tokens(CONTEXT_TOKENS),
            _ => {}
        }
        self.tally.add_name(self.open.characters, TAG);
    }

    /// Adds a string in a place for images and files.
    pub(super) fn media(&mut self, media: Media) {
        let Open { characters, bytes, .. } = self.open;
        let sized = self.open.image.finish().map(SizedImages::of);
        let found = judge(self.open.beginning(), characters, self.open.foreign.is_base64());
        if matches!(found, Found::Inline(_) | Found::Reference) {
            self.media = self.media.saturating_add(bytes);
        }
        match (found, media.kind()) {
            (Found::Nothing, _) => {}
            (Found::Text, _) => self.tally.add_text(characters),
            (Found::Inline(of), kind) => match of.or(kind) {
                Some(Type::Image) if media == Media::Image => self.add_image(sized),
                Some(Type::Recording) if media == Media::Audio => {
                    self.add_file(bytes.saturating_mul(3) / 4);
                }
                of => {
                    self.file.say(of);
                    self.file.add_inline(bytes, sized);
                }
            },
            (Found::Reference, _) => self.reference(media),
        }
    }

    /// Adds the name of an image or a file that is stored elsewhere.
    pub(super) fn reference(&mut self, media: Media) {
        match media {
            Media::Image => self.add_image(None),
            Media::Audio => self.add_tokens(REFERENCE_TOKENS),
            Media::File => self.file.add_reference(),
        }
    }
}
