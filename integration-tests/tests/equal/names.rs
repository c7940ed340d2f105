//! Names that are new with every stack and container: ids, directories, times. They become words, so
//! that two sides can be compared; values of the host stay as they are.

use serde_json::json;

use crate::facts::Facts;
use crate::holding::Holding;
use crate::world::World;

pub(crate) struct Names(Vec<(String, &'static str)>);

impl Names {
    pub(crate) fn of(world: &World, id: &str, first: Option<&str>) -> Self {
        let root = world.stack.root().display().to_string();
        let sandbox = world.stack.sandbox().name().to_owned();
        let script = json!(crate::probe::SCRIPT).to_string();
        let mut all = vec![
            (script.trim_matches('"').to_owned(), "PROBE"),
            (crate::probe::SCRIPT.to_owned(), "PROBE"),
            (id.to_owned(), "ID"),
            (id[..12].to_owned(), "ID12"),
        ];
        if let Some(first) = first {
            all.push((first.to_owned(), "FIRST"));
            all.push((first[..12].to_owned(), "FIRST12"));
        }
        let held = Holding::of(world.stack.sandbox()).root;
        let mut roots = [root, held];
        // One may be a part of the other.
        roots.sort_by_key(|root| std::cmp::Reverse(root.len()));
        all.extend(roots.map(|root| (root, "ROOT")));
        all.push((sandbox, "SANDBOX"));
        Self(all)
    }

    pub(crate) fn apply(&self, facts: Facts) -> Facts {
        facts.map(|field, value| {
            let mut value = value;
            for (name, word) in &self.0 {
                value = value.replace(name, word);
            }
            let value = hexadecimal(&value);
            if is_time(&value) && !value.starts_with("0001-") {
                return "TIME".to_owned();
            }
            if field == "inspect.NetworkSettings.SandboxKey" {
                // Named by the sandbox's id, or the container's.
                return value
                    .rsplit_once('/')
                    .map_or_else(|| value.clone(), |(at, _)| at.to_owned());
            }
            if field == "inspect.State.Pid" && value != "0" {
                return "PID".to_owned();
            }
            value
        })
    }
}

/// Ids of 64 digits that belong to nobody above: volumes, endpoints, sandboxes.
fn hexadecimal(text: &str) -> String {
    let mut result = String::new();
    let mut run = String::new();
    let end = |run: &mut String, result: &mut String| {
        result.push_str(if run.len() == 64 { "HEX" } else { run });
        run.clear();
    };
    for character in text.chars() {
        if character.is_ascii_digit() || ('a'..='f').contains(&character) {
            run.push(character);
        } else {
            end(&mut run, &mut result);
            result.push(character);
        }
    }
    end(&mut run, &mut result);
    result
}

fn is_time(text: &str) -> bool {
    let shape = text.bytes().take(19).map(|byte| if byte.is_ascii_digit() { b'0' } else { byte });
    shape.eq(*b"0000-00-00T00:00:00") && text.ends_with('Z')
}
