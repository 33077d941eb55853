//! Follows a page of the documentation in a cluster, section by section: writes its files and runs its
//! commands.

use crate::nodes::NodeCluster;
use e2e::artefacts;

/// A fenced block.
struct FencedBlock {
    section: String,
    info: String,
    text: String,
}

pub struct Document(Vec<FencedBlock>);

impl Document {
    /// Reads the page at this path in the repository.
    pub fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(artefacts::root().join(path)).expect("the page can be read");
        let mut lines = text.lines();
        let (mut blocks, mut section) = (Vec::new(), String::new());
        while let Some(line) = lines.next() {
            if line.starts_with('#') {
                section = line.trim_start_matches('#').trim().to_owned();
            }
            let Some(info) = line.strip_prefix("```") else { continue };
            let text =
                lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
            blocks.push(FencedBlock { section: section.clone(), info: info.to_owned(), text });
        }
        Self(blocks)
    }

    /// Follows all sections except these.
    pub fn follow(&self, cluster: &NodeCluster, without: &[&str]) {
        self.0
            .iter()
            .filter(|block| !without.contains(&block.section.as_str()))
            .for_each(|it| it.run(cluster));
    }

    /// Follows one section.
    pub fn follow_section(&self, cluster: &NodeCluster, section: &str) {
        let mut blocks = self.0.iter().filter(|block| block.section == section).peekable();
        assert!(blocks.peek().is_some(), "there is no section {section}");
        blocks.for_each(|it| it.run(cluster));
    }
}

impl FencedBlock {
    fn run(&self, cluster: &NodeCluster) {
        let title = self.info.split_once("title=\"").and_then(|(_, rest)| rest.strip_suffix('"'));
        match (self.info.as_str(), title) {
            ("sh", _) => drop(cluster.shell(&self.text)),
            (_, Some(title)) => cluster.write(title, &self.text),
            _ => {}
        }
    }
}
