//! Reports of experiments, with and without steps of load.

use super::*;
use crate::section::Section;

fn read(path: &std::path::Path) -> Findings {
    match Document::load(path).unwrap() {
        Document::Experiment(findings) => *findings,
        Document::Evaluation(_) => panic!("{} is an evaluation", path.display()),
    }
}

#[test]
fn findings_are_written_read_and_shown() {
    for findings in [sample::findings(), sample::plain_findings()] {
        let dir = tempfile::tempdir().unwrap();
        write_findings(&findings, dir.path()).unwrap();
        let loaded = read(&dir.path().join("report.json"));
        assert_eq!((loaded.sections.len(), &loaded.verdicts), (findings.sections.len(), &findings.verdicts));
        // Rounded once, it stays as it is.
        let again = tempfile::tempdir().unwrap();
        write_findings(&loaded, again.path()).unwrap();
        assert_eq!(read(&again.path().join("report.json")), loaded);
        assert_eq!((loaded.steps.len(), &loaded.validity), (findings.steps.len(), &findings.validity));
        let file = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let shown = [file("report.html"), file("report.md"), terminal::render_findings(&findings, false)];
        for part in ["After a surge", "Back to normal", "187", "small", "a remark"] {
            assert!(shown.iter().all(|text| text.contains(part)), "{part}");
        }
        let [page, markdown, text] = shown;
        assert!(
            page.contains("three &lt;ways&gt;")
                && page.contains("Size &amp; speed")
                && page.contains("Users &amp; cost")
                && !page.contains("NaN")
        );
        assert!(page.contains("Second by second") && markdown.contains("Second by second"));
        assert!(!text.contains("Second by second"), "too long for a terminal");
    }
}

#[test]
fn steps_of_an_experiment_are_shown_as_an_evaluations_are() {
    let findings = sample::findings();
    let [page, text] = [html::render_findings(&findings), terminal::render_findings(&findings, false)];
    for part in ["What users get", "Good answers/s", "Soak"] {
        assert!(page.contains(part) && text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(page.contains("Valid: protected, surge") && page.contains("no: 97 % CPU is above 90 %"));
    let plain = html::render_findings(&sample::plain_findings());
    assert!(!plain.contains("What users get") && !plain.contains("Under rising load"));
}

#[test]
fn conditions_without_steps_are_shown_without_the_charts_of_steps() {
    let findings = Findings { steps: Vec::new(), ..sample::findings() };
    let shown = [html::render_findings(&findings), markdown::render_findings(&findings)];
    for text in &shown {
        assert!(text.contains("Law of the store") && text.contains("After a surge"), "{text}");
        assert!(!text.contains("What users get") && !text.contains("Under rising load"), "{text}");
    }
    html_page::check(&shown[0]);
    let text = terminal::render_findings(&findings, false);
    assert!(text.contains("After a surge") && !text.contains("What users get"), "{text}");
}

#[test]
fn every_page_shows_the_sections() {
    let report = sample::with_extras();
    let (page, text, table) = (html::render(&report), markdown::render(&report), terminal::render(&report, false));
    for shown in [&page, &text, &table] {
        for words in ["After a surge", "Soak", "api memory, MiB"] {
            assert!(shown.contains(words), "{words} is missing in\n{shown}");
        }
    }
    assert!(page.contains("protected through the surge") && page.contains("Memory over the soak"));
    assert!(table.contains("2000·20%"), "the heads name the share of unknown ids:\n{table}");
    let plain = sample::report();
    assert!(!html::render(&plain).contains("After a surge") && !terminal::render(&plain, false).contains("Soak"));
}

#[test]
fn a_section_may_be_empty() {
    let findings = Findings { sections: vec![Section::default()], ..sample::plain_findings() };
    assert!(html::render_findings(&findings).contains("section-0"));
    assert!(markdown::render_findings(&findings).contains("## "));
}

#[test]
fn steps_of_both_kinds_can_be_compared() {
    let experiment = Document::Experiment(Box::new(sample::findings()));
    let steps = experiment.into_steps().unwrap();
    assert_eq!(steps.steps, sample::with_extras().steps);
    assert_eq!(Document::Experiment(Box::new(sample::plain_findings())).into_steps(), None);
}
