use crate::{code, docs, head, page, table};
use limitador_adapter::kubernetes::reason::ConditionReason;

#[test]
fn the_page_of_statuses() {
    let mut text = head(
        "Status",
        "`kubectl get wtrlp` shows the reasons of a policy's two conditions, and `kubectl get wtrlp -o wide` their messages. \
         `Accepted` says whether the policy is valid; `Enforced` says whether it is in force. `status.conditions` covers the \
         policy as a whole, and `status.ancestors` each Gateway that it applies to.\n",
    );
    text += &table(
        ["Reason", "Meaning", "What to do"],
        ConditionReason::ALL
            .iter()
            .map(|reason| [code(reason.name()), reason.about().into(), reason.remedy().into()]),
    );
    page("reference/status.md", &text);
}

#[test]
fn no_reason_is_written_out_beside_the_table() {
    let source = e2e::artefacts::root().join("limitador-adapter/src/kubernetes/conditions.rs");
    let source = std::fs::read_to_string(source).unwrap();
    for reason in ConditionReason::ALL
        .iter()
        .filter(|reason| reason.name() != "Accepted" && reason.name() != "Enforced")
    {
        assert!(!source.contains(&format!("\"{}\"", reason.name())), "{}", reason.name());
    }
}

/// Every reason that reports a problem has a section in Troubleshoot.
#[test]
fn every_reason_that_needs_a_remedy_is_a_symptom() {
    let troubleshoot = std::fs::read_to_string(docs().join("troubleshoot.md")).unwrap();
    let wrong = ConditionReason::ALL.iter().filter(|reason| !reason.remedy().is_empty());
    let missing: Vec<_> = wrong
        .map(|reason| reason.name())
        .filter(|name| !troubleshoot.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "docs/troubleshoot.md lacks {missing:?}");
}
