//! Runs the story of `make demo`.

use regex::Regex;
use std::process::Command;

#[test]
fn alice_is_refused_and_bob_is_not() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).arg("--once").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    let (alice, bob) = told.split_once("bob, on the gold plan").expect("two people ask");
    let answers = |part: &str| -> Vec<String> {
        let line = Regex::new(r"(?m)^  [1-5]  ([0-9]{3})  ").unwrap();
        line.captures_iter(part).map(|found| found[1].to_owned()).collect()
    };
    assert_eq!(answers(alice), ["200", "200", "200", "200", "429"], "{told}");
    assert_eq!(answers(bob), ["200"; 5], "{told}");
    assert!(
        alice.contains("Rate limit exceeded for limit free of policy default/llm-token-limits"),
        "{told}"
    );
    let row = |limit: &str, who: &str| {
        let pattern =
            format!(r"(?m)^  default/llm-token-limits +{limit} +{who} +([0-9]+) +([0-9]+) +([0-9]+)$");
        let row =
            Regex::new(&pattern).unwrap().captures(&told).unwrap_or_else(|| panic!("no {who} in {told}"));
        [1, 2, 3].map(|column| row[column].parse::<u64>().unwrap())
    };
    for (limit, who, max, asked) in [("free", "alice", 20_000, 4), ("gold", "bob", 200_000, 5)] {
        let [of, used, left] = row(limit, who);
        assert_eq!((of, used + left), (max, max), "{told}");
        assert!(used >= asked * 4_900 && used < asked * 5_000, "{told}");
    }
    assert!(told.contains("The LLM saw 9 requests"), "{told}");
    assert_eq!(told.matches("curl -i http://127.0.0.1:").count(), 2, "{told}");
}
