//! One client of the storm: it does things to containers of its own, and remembers.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::Method;
use integration_tests::Stack;
use integration_tests::client::Answer as Told;
use integration_tests::sandbox::until;
use serde_json::{Value, json};

use crate::model::{Answer, Request, State, Thing};
use crate::random::Random;
use crate::{ENDING, shell_with};

/// How many containers a worker has at most.
const MANY: usize = 3;

pub(crate) struct Worker<'a> {
    stack: &'a Stack,
    number: usize,
    random: Random,
    made: usize,
    things: Vec<Own>,
    /// The last answer that was none of those expected.
    refusal: String,
}

/// A container of the worker's.
struct Own {
    name: String,
    id: String,
    pid: Option<i32>,
    thing: Thing,
    /// The length of its log before its last start.
    mark: u64,
    execs: Vec<Exec>,
}

/// What is known of an exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exec {
    /// It may have done its work.
    Tried,
    /// Its start was acknowledged, and nothing was done to the container since.
    Started,
    Done,
}

/// The engine is away.
#[derive(Debug)]
struct Away;

/// Why a request may be answered and yet not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    /// containerd goes and comes back.
    Below,
    /// The engine is ending.
    Above,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(stack: &'a Stack, number: usize, seed: u64) -> Self {
        let random = Random::new(seed ^ (number as u64) << 32);
        Self { stack, number, random, made: 0, things: Vec::new(), refusal: String::new() }
    }

    /// Works until it is told to stop or the engine goes away; counts what was acknowledged.
    pub(crate) fn work(&mut self, trouble: Trouble, stop: &AtomicBool, acknowledged: &AtomicUsize) {
        while !stop.load(Ordering::Relaxed) {
            match (self.step(), trouble) {
                (Ok(true), _) => drop(acknowledged.fetch_add(1, Ordering::Relaxed)),
                (Ok(false), Trouble::None) => panic!("refused: {}", self.refusal),
                (Ok(false), Trouble::Below) => {
                    until("containerd answers", || self.stack.containerd_listens());
                    self.check();
                }
                (Ok(false), Trouble::Above) | (Err(Away), _) => return,
            }
        }
    }

    /// One request. False when it was refused.
    fn step(&mut self) -> Result<bool, Away> {
        self.things.retain(|own| own.thing.is() != Some(State::Absent));
        if self.things.is_empty() || self.things.len() < MANY && self.random.below(4) == 0 {
            return self.create();
        }
        let all: Vec<usize> = (0..self.things.len()).collect();
        let at = self.random.pick(&all);
        match self.things[at].thing.is() {
            Some(State::Running) => match self.random.below(8) {
                0..4 => self.exec(at),
                4 => self.ask(at, Request::End(7), "POST", "/stop?t=15"),
                5 => self.ask(at, Request::End(137), "POST", "/kill"),
                6 => {
                    let sent = self.ask(at, Request::Signal, "POST", "/kill?signal=USR1")?;
                    match sent {
                        true if self.things[at].thing.is_removed_by_itself() => self.vanishes(at),
                        true => self.ask(at, Request::Wait, "POST", "/wait"),
                        false => Ok(false),
                    }
                }
                _ => self.ask(at, Request::Remove, "DELETE", "?force=1"),
            },
            Some(_) if self.random.below(4) == 0 => {
                self.ask(at, Request::Remove, "DELETE", "?force=1")
            }
            _ => self.start(at),
        }
    }

    fn create(&mut self) -> Result<bool, Away> {
        self.made += 1;
        let auto_remove = self.random.below(4) == 0;
        let name = format!("w{}-{}", self.number, self.made);
        let body = shell_with(ENDING, json!({"AutoRemove": auto_remove}));
        let path = format!("/containers/create?name={name}");
        let (thing, id) = (Thing::new(auto_remove), String::new());
        self.things.push(Own { name, id, pid: None, thing, mark: 0, execs: Vec::new() });
        let told = self.call("POST", &path, Some(&body));
        let own = self.things.last_mut().unwrap();
        own.thing.asked(Request::Create, outcome(told.as_ref(), 201));
        let told = told.ok_or(Away)?;
        if told.status == 201 {
            own.id = told.json()["Id"].as_str().unwrap().to_owned();
        }
        Ok(told.status == 201)
    }

    fn start(&mut self, at: usize) -> Result<bool, Away> {
        self.things[at].mark = std::fs::metadata(self.log(at)).map_or(0, |data| data.len());
        self.things[at].pid = None;
        let started = self.ask(at, Request::Start, "POST", "/start")?;
        if started {
            self.until_ready(at);
        }
        Ok(started)
    }

    /// A signal that comes before the shell's `trap` is ignored: it is process 1.
    fn until_ready(&self, at: usize) {
        let own = &self.things[at];
        let (log, mark) = (self.log(at), usize::try_from(own.mark).unwrap());
        until("it says that it is ready", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.get(mark..).is_some_and(|new| new.contains("ready"))
        });
    }

    fn log(&self, at: usize) -> PathBuf {
        let id = &self.things[at].id;
        self.stack.data_root().join("containers").join(id).join(format!("{id}-json.log"))
    }

    /// Leaves a line in the container.
    fn exec(&mut self, at: usize) -> Result<bool, Away> {
        let number = self.things[at].execs.len();
        self.things[at].execs.push(Exec::Tried);
        let body = json!({"Cmd": ["sh", "-c", format!("echo {number} >> /done")]});
        let path = format!("/containers/{}/exec", self.things[at].name);
        let told = self.call("POST", &path, Some(&body)).ok_or(Away)?;
        if told.status != 201 {
            return Ok(false);
        }
        let exec = told.json()["Id"].as_str().unwrap().to_owned();
        let start = json!({"Detach": true});
        let told = self.call("POST", &format!("/exec/{exec}/start"), Some(&start)).ok_or(Away)?;
        if told.status == 200 {
            self.things[at].execs[number] = Exec::Started;
        }
        Ok(told.status == 200)
    }

    /// `--rm` does its work.
    fn vanishes(&mut self, at: usize) -> Result<bool, Away> {
        let mut seen = Ok(None);
        until("--rm has removed it", || {
            seen = self.look(at);
            !matches!(seen, Ok(Some(State::Running | State::Exited(6)) | None))
        });
        assert_eq!(seen?, Some(State::Absent));
        self.things[at].thing.found(State::Absent);
        Ok(true)
    }

    fn ask(&mut self, at: usize, request: Request, method: &str, path: &str) -> Result<bool, Away> {
        let path = format!("/containers/{}{path}", self.things[at].name);
        // An exec that has only begun may not get any further.
        let begun = self.things[at].execs.iter_mut().filter(|exec| **exec == Exec::Started);
        begun.for_each(|exec| *exec = Exec::Tried);
        let told = self.call(method, &path, None);
        let status = if request == Request::Wait { 200 } else { 204 };
        let answer = outcome(told.as_ref(), status);
        let own = &mut self.things[at];
        own.thing.asked(request, answer);
        let told = told.ok_or(Away)?;
        if request == Request::Wait && answer == Answer::Acknowledged {
            let code = told.json()["StatusCode"].as_i64().unwrap();
            assert!(own.thing.may_be(State::Exited(code)), "{}: {code}, {:?}", own.name, own.thing);
        }
        // Nobody else has it: it is there, and it is what we know it to be.
        let surprise = matches!(told.status, 304 | 404 | 409);
        assert!(!surprise, "{method} {path}: {}, of {:?}", told.text(), own.thing);
        Ok(answer == Answer::Acknowledged)
    }

    /// Nothing when the engine is away; that it hangs is a failure.
    fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> Option<Told> {
        let method: Method = method.parse().unwrap();
        let body = body.map(|body| ("application/json", body.to_string().into_bytes()));
        match self.stack.api().try_call(method, path, body) {
            Ok(told) => {
                if told.status >= 300 {
                    self.refusal = format!("{path}: {} {}", told.status, told.text());
                }
                Some(told)
            }
            Err(error) => {
                assert!(!error.is::<tokio::time::error::Elapsed>(), "{path}: no answer");
                None
            }
        }
    }

    /// Looks at everything after the return: it is what it may be, and what runs is what ran.
    pub(crate) fn check(&mut self) {
        for at in 0..self.things.len() {
            assert!(self.settled(at).is_ok(), "the engine is back");
            if self.things[at].thing.is() == Some(State::Running) {
                self.until_ready(at);
                self.check_execs(at);
            }
        }
        self.things.retain(|own| own.thing.is() != Some(State::Absent));
    }

    /// Finds out where it stands once everything that was under way has come to its end.
    fn settled(&mut self, at: usize) -> Result<(), Away> {
        if let Some(State::Running) = self.look(at)?
            && self.things[at].thing.is_doomed()
        {
            // Whether it has heard the signal is not to be known; now it ends for certain.
            let path = format!("/containers/{}/kill", self.things[at].name);
            // containerd may have gone this very moment.
            let mut told = None;
            until("it is killed", || {
                told = self.call("POST", &path, None);
                told.as_ref().is_none_or(|told| told.status != 503)
            });
            let told = told.ok_or(Away)?;
            assert!(matches!(told.status, 204 | 404 | 409), "{path}: {}", told.text());
            self.things[at].thing.asked(Request::End(137), Answer::Acknowledged);
        }
        let what = format!("{} {:?} settles", self.things[at].name, self.things[at].thing);
        let mut seen = Ok(None);
        until(&what, || {
            seen = self.look(at);
            match seen {
                Ok(Some(state)) => self.things[at].thing.may_be(state),
                Ok(None) => false,
                Err(Away) => true,
            }
        });
        if let Some(state) = seen? {
            self.things[at].thing.found(state);
        }
        Ok(())
    }

    /// Its state, if it is one in which it can stay.
    fn look(&mut self, at: usize) -> Result<Option<State>, Away> {
        let path = format!("/containers/{}/json", self.things[at].name);
        let told = self.call("GET", &path, None).ok_or(Away)?;
        let own = &mut self.things[at];
        if told.status == 404 {
            return Ok(Some(State::Absent));
        }
        let told = told.expect(200).json();
        own.id = told["Id"].as_str().unwrap().to_owned();
        Ok(match told["State"]["Status"].as_str().unwrap() {
            "created" => Some(State::Created),
            "exited" => Some(State::Exited(told["State"]["ExitCode"].as_i64().unwrap())),
            "running" => {
                let pid = i32::try_from(told["State"]["Pid"].as_i64().unwrap()).unwrap();
                let lives = self.stack.sandbox().path(format!("/proc/{pid}")).exists();
                let known = *own.pid.get_or_insert(pid);
                assert_eq!(pid, known, "{}: another process", own.name);
                lives.then_some(State::Running)
            }
            _ => None,
        })
    }

    /// What was acknowledged has happened; what was not, at most once.
    fn check_execs(&mut self, at: usize) {
        let own = &mut self.things[at];
        if own.execs.is_empty() {
            return;
        }
        let file = self.stack.sandbox().path(format!("/proc/{}/root/done", own.pid.unwrap()));
        until("every exec has done its work", || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let lines: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
            own.execs.iter().enumerate().all(|(number, exec)| {
                let times = lines.iter().filter(|line| **line == number).count();
                assert!(times <= 1, "{}: {text}", own.name);
                *exec == Exec::Tried || times == 1
            })
        });
        let begun = own.execs.iter_mut().filter(|exec| **exec == Exec::Started);
        begun.for_each(|exec| *exec = Exec::Done);
    }

    /// Names of what must be there.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.things.iter().map(|own| own.name.clone())
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = String> + '_ {
        let running = self.things.iter().filter(|own| own.thing.is() == Some(State::Running));
        running.map(|own| own.name.clone())
    }
}

fn outcome(told: Option<&Told>, status: u16) -> Answer {
    match told {
        None => Answer::None,
        Some(told) if told.status == status => Answer::Acknowledged,
        Some(_) => Answer::Refused,
    }
}
