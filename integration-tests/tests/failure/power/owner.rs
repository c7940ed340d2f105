//! One client of the power cuts: it does things to what is its own, and remembers what was
//! acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use integration_tests::Stack;
use integration_tests::client::Answer as Told;
use integration_tests::sandbox::until;
use serde_json::{Value, json};

use super::may::{May, Stand};
use super::picture;
use crate::random::Random;

/// How many of each kind an owner has at most.
const MANY: usize = 2;
/// The image of all containers, with files that a volume is filled from.
pub(crate) const BASE: &str = "base:1";

pub(crate) struct Owner {
    number: usize,
    random: Random,
    made: u64,
    things: Vec<Own>,
    /// Ids of what was removed.
    graves: Vec<String>,
    /// Names of what was removed, free again.
    names: Vec<String>,
    volumes: BTreeMap<String, May<bool>>,
    /// Of a name: nothing, or the mark of its image.
    tags: BTreeMap<String, May<Option<u64>>>,
}

/// A container.
struct Own {
    id: Option<String>,
    name: May<String>,
    label: String,
    auto_remove: bool,
    /// Has an anonymous volume, filled at its first start; ends with 3 if that is whole.
    brief: bool,
    now: Stand,
    may: May<Stand>,
}

/// The engine is gone.
#[derive(Debug)]
pub(crate) struct Cut;

impl Owner {
    pub(crate) fn new(number: usize, seed: u64) -> Self {
        Self {
            number,
            random: Random::new(seed ^ (number as u64) << 32),
            made: 0,
            things: Vec::new(),
            graves: Vec::new(),
            names: Vec::new(),
            volumes: BTreeMap::new(),
            tags: BTreeMap::new(),
        }
    }

    /// Works until the power is cut; counts what was acknowledged.
    pub(crate) fn work(&mut self, stack: &Stack, acknowledged: &AtomicUsize) {
        while let Ok(()) = self.step(stack) {
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn step(&mut self, stack: &Stack) -> Result<(), Cut> {
        match self.random.below(12) {
            0 => self.volume(stack),
            1..4 => self.image(stack),
            _ if self.things.is_empty() => self.create(stack),
            4..6 if self.things.len() < MANY => self.create(stack),
            _ => {
                let all: Vec<usize> = (0..self.things.len()).collect();
                let at = self.random.pick(&all);
                self.container(stack, at)
            }
        }
    }

    fn create(&mut self, stack: &Stack) -> Result<(), Cut> {
        let name = self.names.pop().unwrap_or_else(|| self.fresh("c"));
        let (label, brief) = (self.fresh("l"), self.random.below(2) == 0);
        let auto_remove = self.random.below(4) == 0;
        let script = format!(
            "[ \"$(cat /files/* | sha256sum)\" = '{}  -' ] || exit 9; {}",
            picture::sum(0),
            if brief { "exit 3" } else { "exec sleep 1000" }
        );
        let volumes = if brief { json!({"/files": {}}) } else { json!({}) };
        let body = json!({
            "Image": BASE, "Cmd": ["sh", "-c", script], "Labels": {"of": label}, "Volumes": volumes,
            "HostConfig": {"AutoRemove": auto_remove},
        });
        let mut may = May::only(Stand::Absent);
        may.tried(Stand::Created);
        let (now, known) = (Stand::Absent, May::only(name.clone()));
        self.things.push(Own { id: None, name: known, label, auto_remove, brief, now, may });
        let path = format!("/containers/create?name={name}");
        let id = call(stack, "POST", &path, Some(&body), 201)?.json()["Id"].clone();
        let own = self.things.last_mut().unwrap();
        own.id = Some(id.as_str().unwrap().to_owned());
        own.now = Stand::Created;
        if !auto_remove {
            own.may.is(Stand::Created);
        }
        Ok(())
    }

    fn container(&mut self, stack: &Stack, at: usize) -> Result<(), Cut> {
        let choice = self.random.below(6);
        let renamed = self.fresh("c");
        let own = &mut self.things[at];
        match (own.now, choice) {
            (Stand::Running, 0..4) | (_, 0) => self.remove(stack, at),
            (_, 1) => {
                own.name.tried(renamed.clone());
                let path = format!("{}/rename?name={renamed}", own.path());
                call(stack, "POST", &path, None, 204)?;
                if !own.auto_remove {
                    own.name.is(renamed);
                }
                Ok(())
            }
            (Stand::Running, _) => own.end(stack),
            _ => {
                own.start(stack)?;
                if own.brief { own.end(stack) } else { Ok(()) }
            }
        }?;
        let gone = self.things.extract_if(.., |own| own.now == Stand::Absent);
        for own in gone {
            self.graves.extend(own.id);
            self.names.extend(own.name.all().last().cloned().filter(|_| !own.auto_remove));
        }
        Ok(())
    }

    fn remove(&mut self, stack: &Stack, at: usize) -> Result<(), Cut> {
        let own = &mut self.things[at];
        own.may.tried(Stand::Absent);
        if own.now == Stand::Running {
            own.may.tried(Stand::Exited(137));
        }
        call(stack, "DELETE", &format!("{}?force=1&v=1", own.path()), None, 204)?;
        own.now = Stand::Absent;
        own.may.is(Stand::Absent);
        Ok(())
    }

    fn volume(&mut self, stack: &Stack) -> Result<(), Cut> {
        let there = self.volumes.iter().filter(|(_, may)| may.may_be(&true));
        let there: Vec<String> = there.map(|(name, _)| name.clone()).collect();
        if there.len() < MANY && self.random.below(2) == 0 || there.is_empty() {
            let name = self.fresh("v");
            let mut may = May::only(false);
            may.tried(true);
            self.volumes.insert(name.clone(), may);
            let body = json!({"Name": name, "Labels": {"of": name}});
            call(stack, "POST", "/volumes/create", Some(&body), 201)?;
            self.volumes.get_mut(&name).unwrap().is(true);
            return Ok(());
        }
        let name = &there[0];
        self.volumes.get_mut(name).unwrap().tried(false);
        call(stack, "DELETE", &format!("/volumes/{name}"), None, 204)?;
        self.volumes.get_mut(name).unwrap().is(false);
        Ok(())
    }

    fn image(&mut self, stack: &Stack) -> Result<(), Cut> {
        let mark = |may: &May<Option<u64>>| may.all().find_map(|mark| *mark);
        let there: Vec<(String, u64)> =
            self.tags.iter().filter_map(|(tag, may)| Some((tag.clone(), mark(may)?))).collect();
        let tag = self.fresh("i");
        let name = format!("{tag}:1");
        match there.first() {
            Some((old, _)) if there.len() >= MANY => {
                self.tags.get_mut(old).unwrap().tried(None);
                call(stack, "DELETE", &format!("/images/{old}"), None, 200)?;
                self.tags.get_mut(old).unwrap().is(None);
            }
            Some((old, mark)) if self.random.below(2) == 0 => {
                let mut may = May::only(None);
                may.tried(Some(*mark));
                self.tags.insert(name.clone(), may);
                let path = format!("/images/{old}/tag?repo={tag}&tag=1");
                call(stack, "POST", &path, None, 201)?;
                self.tags.get_mut(&name).unwrap().is(Some(*mark));
            }
            _ => {
                let mark = (self.number as u64 + 1) << 32 | self.made;
                let mut may = May::only(None);
                may.tried(Some(mark));
                self.tags.insert(name.clone(), may);
                load(stack, &name, mark)?;
                self.tags.get_mut(&name).unwrap().is(Some(mark));
            }
        }
        Ok(())
    }

    fn fresh(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}{}-{}", self.number, self.made)
    }

    /// Looks at everything on a fresh engine: it is what it may be, and of use.
    pub(crate) fn check(&mut self, stack: &Stack) {
        for own in &mut self.things {
            own.check(stack);
        }
        for own in self.things.extract_if(.., |own| own.now == Stand::Absent) {
            self.graves.extend(own.id);
        }
        self.names.clear();
        for id in &self.graves {
            let told = stack.api().get(&format!("/containers/{id}/json"));
            assert_eq!(told.status, 404, "revived: {}", told.text());
        }
        for (name, may) in &mut self.volumes {
            let told = stack.api().get(&format!("/volumes/{name}"));
            let there = told.status == 200;
            assert!(may.may_be(&there), "{name}: {may:?}, {}", told.text());
            assert!(!there || told.json()["Labels"] == json!({"of": name}), "{}", told.text());
            may.is(there);
        }
        self.volumes.retain(|_, may| may.may_be(&true));
        for (tag, may) in &mut self.tags {
            let told = stack.api().get(&format!("/images/{tag}/json"));
            let there = told.status == 200;
            let mark = may.all().find(|mark| mark.is_some() == there);
            let mark = *mark.unwrap_or_else(|| panic!("{tag}: {may:?}, {}", told.text()));
            if let Some(mark) = mark {
                assert_eq!(whole(stack, tag), picture::sum(mark), "{tag}");
            }
            may.is(mark);
        }
        self.tags.retain(|_, may| !may.may_be(&None));
    }

    /// Names of the containers that there are, once checked.
    pub(crate) fn containers(&self) -> impl Iterator<Item = String> + '_ {
        self.things.iter().map(|own| own.name.all().next().unwrap().clone())
    }

    /// How many anonymous volumes those have.
    pub(crate) fn anonymous(&self) -> usize {
        self.things.iter().filter(|own| own.brief).count()
    }

    pub(crate) fn volumes(&self) -> impl Iterator<Item = &String> {
        self.volumes.keys()
    }

    pub(crate) fn tags(&self) -> impl Iterator<Item = &String> {
        self.tags.keys()
    }
}

impl Own {
    fn path(&self) -> String {
        format!("/containers/{}", self.id.as_deref().unwrap())
    }

    fn start(&mut self, stack: &Stack) -> Result<(), Cut> {
        self.may.tried(Stand::Running);
        call(stack, "POST", &format!("{}/start", self.path()), None, 204)?;
        self.now = Stand::Running;
        Ok(())
    }

    /// Ends it, or waits until it has ended.
    fn end(&mut self, stack: &Stack) -> Result<(), Cut> {
        let code = if self.brief { 3 } else { 137 };
        self.may.tried(Stand::Exited(code));
        // Before it can end: with --rm there is nobody to ask afterwards.
        let condition = if self.auto_remove { "removed" } else { "not-running" };
        let wait = format!("{}/wait?condition={condition}", self.path());
        if self.brief && self.auto_remove {
            let path = format!("{}/json", self.path());
            let mut gone = Ok(false);
            until("--rm has removed it", || {
                gone = ask(stack, "GET", &path, None).map(|told| told.status == 404);
                !matches!(gone, Ok(false))
            });
            gone?;
        } else {
            if !self.brief {
                call(stack, "POST", &format!("{}/kill", self.path()), None, 204)?;
            }
            let told = ask(stack, "POST", &wait, None)?;
            if !(self.auto_remove && told.status == 404) {
                assert_eq!(told.status, 200, "{}", told.text());
                assert_eq!(told.json()["StatusCode"], code, "{}", told.text());
            }
        }
        self.now = if self.auto_remove { Stand::Absent } else { Stand::Exited(code) };
        self.may.is(self.now);
        Ok(())
    }

    fn check(&mut self, stack: &Stack) {
        let api = stack.api();
        let mut words: Vec<String> = self.name.all().cloned().collect();
        words.extend(self.id.clone());
        let find = || {
            words.iter().find_map(|word| {
                let told = api.get(&format!("/containers/{word}/json"));
                // A name may be another's by now.
                (told.status == 200)
                    .then(|| told.json())
                    .filter(|it| it["Config"]["Labels"]["of"] == *self.label)
            })
        };
        let stand = |found: &Option<Value>| match found {
            None => Stand::Absent,
            Some(found) => match found["State"]["Status"].as_str().unwrap() {
                "created" => Stand::Created,
                "exited" => Stand::Exited(found["State"]["ExitCode"].as_i64().unwrap()),
                _ => Stand::Running,
            },
        };
        let mut found = None;
        until(&format!("{words:?} is one of {:?}", self.may), || {
            found = find();
            self.may.allows(stand(&found), self.auto_remove)
        });
        self.now = stand(&found);
        self.may.is(self.now);
        let Some(found) = found else { return };
        let name = found["Name"].as_str().unwrap().trim_start_matches('/').to_owned();
        assert!(self.name.may_be(&name), "{name}: {:?}", self.name);
        self.name.is(name);
        self.id = Some(found["Id"].as_str().unwrap().to_owned());
        assert_eq!(found["Config"]["Image"], BASE);
        assert_eq!(found["Mounts"].as_array().unwrap().len(), usize::from(self.brief));
        self.start(stack).expect("the engine is there");
        self.end(stack).expect("the engine is there");
    }
}

pub(crate) fn load(stack: &Stack, name: &str, mark: u64) -> Result<(), Cut> {
    let archive = Some(("application/x-tar", picture::archive(name, mark)));
    let told = request(stack, "POST", "/images/load?quiet=1", archive)?;
    assert!(told.text().contains(&format!("Loaded image: {name}")), "{}", told.text());
    Ok(())
}

/// What an image says of itself.
fn whole(stack: &Stack, image: &str) -> String {
    let api = stack.api();
    let id = api.run("", &json!({"Image": image}));
    assert_eq!(api.wait(&id), 0);
    let out = api.get(&format!("/containers/{id}/logs?stdout=1&stderr=1")).expect(200).streams().0;
    api.delete(&format!("/containers/{id}")).expect(204);
    out.trim_end().trim_end_matches("  -").to_owned()
}

fn call(
    stack: &Stack,
    method: &str,
    path: &str,
    body: Option<&Value>,
    status: u16,
) -> Result<Told, Cut> {
    let told = ask(stack, method, path, body)?;
    assert_eq!(told.status, status, "{method} {path}: {}", told.text());
    Ok(told)
}

fn ask(stack: &Stack, method: &str, path: &str, body: Option<&Value>) -> Result<Told, Cut> {
    let body = body.map(|body| ("application/json", body.to_string().into_bytes()));
    request(stack, method, path, body)
}

fn request(
    stack: &Stack,
    method: &str,
    path: &str,
    body: Option<(&str, Vec<u8>)>,
) -> Result<Told, Cut> {
    let method: Method = method.parse().unwrap();
    stack.api().try_call(method, path, body).map_err(|error| {
        assert!(!error.is::<tokio::time::error::Elapsed>(), "{path}: no answer");
        Cut
    })
}
