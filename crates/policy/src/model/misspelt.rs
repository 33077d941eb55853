//! Expressions that ask for a part of `auth` that is probably misspelt. Other filters may add any fields to
//! `auth`, so these are warnings instead of errors.

use crate::validation_error::ValidationError;
use expression::cel::Expression;
use expression::suggest::nearest;

/// The warning for an expression, if there is one.
pub(super) fn one(path: String, expression: &Expression) -> Option<ValidationError> {
    expression.references().iter().find_map(|fact| {
        let names: Vec<&str> = fact.iter().map(String::as_str).collect();
        let (root, name) = match names.as_slice() {
            ["auth", name, ..] => ("auth", *name),
            ["request", "auth", name, ..] => ("request.auth", *name),
            _ => return None,
        };
        let meant = nearest(name, ["identity"]).filter(|meant| *meant != name)?;
        let message =
            format!("`{root}.{name}` is always absent, unless a filter in front sets it; did you mean `{root}.{meant}`?");
        Some(ValidationError { path: path.clone(), message })
    })
}

#[cfg(test)]
mod tests {
    use super::one;
    use expression::cel::{Expression, Phase, ResultType};

    #[test]
    fn a_name_close_to_identity_is_probably_misspelt() {
        let warning = |source: &str| {
            let expression = Expression::compile(source, Phase::Request, ResultType::Predicate).unwrap();
            one("spec.when[0].predicate".to_owned(), &expression).map(|warning| warning.message)
        };
        assert_eq!(
            warning("auth.identty.role == 'x'").as_deref(),
            Some(
                "`auth.identty` is always absent, unless a filter in front sets it; did you mean `auth.identity`?"
            )
        );
        assert!(warning("!has(request.auth.Identity.role)").is_some());
        for right in ["auth.identity.role == 'x'", "auth.authorization.opa == 'x'", "request.method == 'GET'"]
        {
            assert_eq!(warning(right), None, "{right}");
        }
    }
}
