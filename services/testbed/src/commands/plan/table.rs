//! Answers for people: a line for each count, and the reasons below it.

use std::io::{self, Write};

use autoscaler::line::{Answer, StepAnswer};

pub fn write(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    match &answer.steps {
        Some(steps) => {
            writeln!(out, "{}", answer.id)?;
            let mut at = 1;
            while at <= steps.len() {
                let same = steps[at..].iter().take_while(|step| is_repeated(step, &steps[at - 1])).count();
                write_step(out, at, at + same, &steps[at - 1])?;
                at += same + 1;
            }
        }
        None => {
            let known = [
                answer.utilization_percent.map(|percent| format!("{percent} % of the request")),
                answer.stabilized.map(|replicas| format!("{replicas} after the windows")),
                answer.reason.map(str::to_owned),
                answer.error.zip(answer.error_text.as_ref()).map(|(code, text)| format!("{code}: {text}")),
            ];
            let known: Vec<String> = known.into_iter().flatten().collect();
            let count = answer.replicas.map_or("-".to_owned(), |replicas| replicas.to_string());
            writeln!(out, "{:<40} {count:>10}   {}", answer.id, known.join(", "))?;
            write_reasons(out, &answer.explain)?;
        }
    }
    out.flush()
}

/// Many steps of a quiet hour are the same.
fn is_repeated(step: &StepAnswer, before: &StepAnswer) -> bool {
    step == before && step.replicas == step.replicas_before
}

fn write_step(out: &mut impl Write, first: usize, last: usize, step: &StepAnswer) -> io::Result<()> {
    let StepAnswer { replicas_before: before, replicas: after, proposed, .. } = step;
    let steps = if first == last { format!("step {first}") } else { format!("steps {first} to {last}") };
    let count = if before == after { after.to_string() } else { format!("{before} → {after}") };
    let mut known = vec![format!("wish {proposed}")];
    known.extend(
        step.metrics.iter().filter_map(|values| values.utilization_percent).map(|percent| format!("{percent} %")),
    );
    known.extend(step.error.zip(step.error_text.as_ref()).map(|(code, text)| format!("{code}: {text}")));
    writeln!(out, "  {steps:<38} {count:>10}   {}", known.join(", "))?;
    write_reasons(out, &step.explain)
}

fn write_reasons(out: &mut impl Write, reasons: &[String]) -> io::Result<()> {
    reasons.iter().try_for_each(|reason| writeln!(out, "      {reason}"))
}

#[cfg(test)]
mod tests {
    use autoscaler::line;

    #[test]
    fn equal_steps_are_one_line() {
        let case = r#"{"id":"x","kind":"reconcile","current_replicas":8,"max_replicas":20,
            "metrics":[{"type":"Resource","target_utilization_percent":70}],
            "steps":[{"load":{"request_milli":2000,"total_milli":11200}},{"after_ms":15000,"load":{"request_milli":2000,"total_milli":11200}},
                     {"after_ms":15000,"load":{"request_milli":2000,"total_milli":16000}}]}"#;
        let answer = line::answer(&line::parse(case.as_bytes()).unwrap()).unwrap();
        let mut out = Vec::new();
        super::write(&mut out, &answer).unwrap();
        let expected = "x
  steps 1 to 2                                    8   wish 8, 70 %
  step 3                                     8 → 12   wish 12, 100 %
      Usage is 100 % of the request, the target is 70 % of the request: 1.43 × 8 pods, rounded up, is 12.
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
