//! The spans of a traced run as a tree with times.

use std::collections::HashMap;

use docker_api::trace::Span;

/// Lines of start, duration and name; what a span led to stands below it, further in.
pub(crate) fn tree(own: &[Span], engine: &[Span]) -> Vec<String> {
    let shift = shift(own, engine);
    let mut spans: Vec<(i128, &Span)> =
        own.iter().map(|span| (i128::from(span.start), span)).collect();
    spans.extend(engine.iter().map(|span| (i128::from(span.start) + shift, span)));
    spans.sort_by_key(|(start, _)| *start);
    let Some(run) = own.first() else { return Vec::new() };
    let known: HashMap<&str, ()> = spans.iter().map(|(_, span)| (span.id.as_str(), ())).collect();
    let mut below: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, (_, span)) in spans.iter().enumerate().filter(|(_, (_, span))| span.id != run.id) {
        // One whose caller wrote nothing still belongs to the run.
        let parent = if known.contains_key(&*span.parent) { &span.parent } else { &run.id };
        below.entry(parent).or_default().push(at);
    }
    let mut lines = vec!["     start       took  what".to_owned()];
    let mut open = vec![(0, i128::from(run.start), run)];
    while let Some((depth, start, span)) = open.pop() {
        let (after, took) = (start - i128::from(run.start), span.end.saturating_sub(span.start));
        let (after, took) = (millis(after), millis(i128::from(took)));
        let name = [&*span.program, &*span.name].map(printable).join(" ");
        lines.push(format!("{after:>10} {took:>10}  {:1$}{name}", "", 2 * depth.min(DEEPEST)));
        // Each once, also where an engine makes a ring of them.
        let children = below.remove(&*span.id).unwrap_or_default();
        open.extend(children.into_iter().rev().map(|at| (depth + 1, spans[at].0, spans[at].1)));
    }
    lines
}

/// What lies deeper, an engine made up.
const DEEPEST: usize = 40;

/// From the engine's clock to ours. On one host they are the same; else what the engine did for a
/// request is taken to lie in the middle of it.
fn shift(own: &[Span], engine: &[Span]) -> i128 {
    let requests = own.iter().filter(|span| matches!(&*span.name, "create" | "start"));
    let answered = requests
        .filter_map(|asked| Some((asked, engine.iter().find(|span| span.parent == asked.id)?)));
    let Some((asked, done)) = answered.into_iter().next() else { return 0 };
    if asked.start <= done.start && done.end <= asked.end {
        return 0;
    }
    let middle = |span: &Span| i128::midpoint(span.start.into(), span.end.into());
    middle(asked) - middle(done)
}

fn millis(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let hundredths = (nanos.unsigned_abs() + 5_000) / 10_000;
    format!("{sign}{}.{:02}", hundredths / 100, hundredths % 100)
}

/// An engine may say what it wants, but not move the cursor.
fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(program: &str, name: &str, id: &str, parent: &str, from: u64, to: u64) -> Span {
        let [program, name, id, parent] = [program, name, id, parent].map(str::to_owned);
        Span { program, name, id, parent, start: from * 1_000_000, end: to * 1_000_000 }
    }

    fn own() -> Vec<Span> {
        vec![
            span("c", "run", "1", "", 1000, 1100),
            span("c", "wait", "3", "1", 1021, 1090),
            span("c", "create", "2", "1", 1010, 1020),
        ]
    }

    #[test]
    fn what_a_span_led_to_stands_below_it_in_order() {
        let engine = [
            span("e", "second", "b", "a", 1014, 1015),
            span("e", "create", "a", "2", 1011, 1019),
            span("e", "first", "c", "a", 1012, 1013),
            span("s", "of one who is silent", "d", "zz", 1022, 1023),
        ];
        assert_eq!(
            tree(&own(), &engine),
            [
                "     start       took  what",
                "      0.00     100.00  c run",
                "     10.00      10.00    c create",
                "     11.00       8.00      e create",
                "     12.00       1.00        e first",
                "     14.00       1.00        e second",
                "     21.00      69.00    c wait",
                "     22.00       1.00    s of one who is silent",
            ]
        );
    }

    #[test]
    fn another_hosts_clock_is_brought_into_the_middle_of_a_request() {
        let engine = [span("e", "create", "a", "2", 5, 7), span("e", "run", "b", "3", 20, 30)];
        let lines = tree(&own(), &engine);
        assert_eq!(lines[3], "     14.00       2.00      e create");
        assert_eq!(lines[5], "     29.00      10.00      e run");
    }

    #[test]
    fn rings_and_controls_do_no_harm() {
        let engine = [
            span("e", "a\x1b[2J\nb", "x", "y", 1, 2),
            span("e", "c", "y", "x", 1, 2),
            span("e", "self", "z", "z", 1, 2),
            span("e", "twice", "2", "1", 1, 2),
        ];
        let lines = tree(&own(), &engine);
        assert!(lines.iter().all(|line| !line.contains(['\x1b', '\n'])), "{lines:?}");
        assert_eq!(tree(&[], &engine), Vec::<String>::new());
    }

    #[test]
    fn no_chain_of_calls_is_too_long_for_a_line() {
        let chain: Vec<Span> = (0_u32..35_000)
            .map(|at| {
                span(
                    "e",
                    "x",
                    &format!("x{at}"),
                    &at.checked_sub(1).map_or("run".into(), |by| format!("x{by}")),
                    1,
                    2,
                )
            })
            .collect();
        let lines = tree(&own(), &chain);
        assert_eq!(lines.len(), chain.len() + own().len() + 1);
        assert!(lines.iter().all(|line| line.len() < 200));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

        #[test]
        fn any_spans_are_each_a_line_of_their_own(
            spans in proptest::collection::vec(("\\PC{0,5}|[\u{1b}\n\ta]{0,5}", 0_usize..6, 0_usize..7, any::<[u64; 2]>(), any::<bool>()), 0..9),
        ) {
            let all: Vec<(Span, bool)> = spans
                .into_iter()
                .map(|(name, id, parent, [start, end], own)| {
                    (Span { program: "p".into(), name, id: id.to_string(), parent: parent.to_string(), start, end }, own)
                })
                .collect();
            let part = |wanted: bool| all.iter().filter(|(_, own)| *own == wanted).map(|(span, _)| span.clone()).collect::<Vec<_>>();
            let lines = tree(&part(true), &part(false));
            prop_assert!(lines.len() <= all.len() + 1);
            prop_assert!(lines.iter().all(|line| !line.chars().any(char::is_control)), "{:?}", lines);
        }
    }
}
