//! An unknown server: it may honour every maximum, and a refusal has OpenAI's form.

use super::DialectRules;
use crate::refusal::openai_form;
use crate::request::Operation;
use crate::request::image::ImageFormula;
use crate::request::maximum::Shape;

pub(super) const RULES: DialectRules = DialectRules {
    heeds: |_, _| true,
    cap: |target| match target.operation {
        Operation::Completion if target.shape == Shape::TextGenerationInference => {
            Some(&[&["parameters"], &["max_new_tokens"]])
        }
        Operation::Completion => Some(&[&["n_predict", "max_tokens"]]),
        _ => None,
    },
    images: ImageFormula::Tiles,
    tokens_per_image: 765,
    streams: false,
    loads_without_prompt: false,
    reads_model_id: true,
    names_user_in_metadata: false,
    too_large: 400,
    refusal: openai_form,
};
