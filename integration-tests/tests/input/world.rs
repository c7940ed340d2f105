//! A stack with one of everything that bad input can be aimed at.

use integration_tests::client::Api;
use integration_tests::image;
use integration_tests::leaks::Inventory;
use integration_tests::pool::{Lease, lease};
use integration_tests::sandbox::until;
use integration_tests::{Stack, parts};
use serde_json::{Value, json};

const IMAGES: [&str; 3] = ["busybox:latest", "empty:1", "odd:1"];

/// The stack, and how it looked before anything bad was asked.
pub(crate) struct World {
    stack: Lease,
    /// Placeholders of the table and what they stand for, the longest first.
    names: Vec<(&'static str, String)>,
    /// The ids of the containers that belong here.
    made: Vec<String>,
    before: Inventory,
    listener: i32,
}

impl World {
    /// Containers in several states, execs, a volume in use, an image without a command and one
    /// with odd files, a port that a container holds and one that a process holds.
    pub(crate) fn new() -> Self {
        let stack = lease();
        let api = stack.api();
        import(&stack, "empty:1", image::layer(&[("etc/", ""), ("etc/file", "x")]));
        import(&stack, "odd:1", odd_files());
        let port = json!({"ExposedPorts": {"80/tcp": {}}, "HostConfig": {"Binds": ["used:/data"],
            "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}});
        let mut names = Vec::new();
        for (name, more) in [("running", port), ("paused", json!({})), ("ending", json!({}))] {
            let mut body = json!({"Image": "busybox", "Cmd": ["sleep", "1000"]});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            names.push((name, api.run(name, &body)));
        }
        names.push(("exec", exec(&stack, "running")));
        names.push(("ended", exec(&stack, "running")));
        names.push(("orphan", exec(&stack, "ending")));
        let ended = names[4].1.clone();
        api.post_json(&format!("/exec/{ended}/start"), &json!({"Detach": true})).expect(200);
        until("the exec ends", || {
            api.get(&format!("/exec/{ended}/json")).expect(200).json()["Running"] == false
        });
        api.post("/containers/paused/pause").expect(204);
        api.post("/containers/ending/kill").expect(204);
        api.wait("ending");
        let script = json!({"Image": "busybox", "Cmd": ["sh", "-c", "echo said; exit 3"]});
        names.push(("exited", api.run("exited", &script)));
        api.wait("exited");
        names.push(("created", api.create("created", &script)));
        // What the first container of an image makes for all of them is there before.
        api.create("odd", &json!({"Image": "odd:1", "Cmd": ["x"]}));
        names.push(("ambiguous", ambiguous(&stack, &script)));
        names.push(("execprefix", names[3].1[..12].to_owned()));
        let id = api.get("/images/busybox/json").expect(200).json()["Id"].clone();
        names.push(("busybox", id.as_str().unwrap().to_owned()));
        let root = stack.root().display().to_string();
        names.push(("top", root[1..].to_owned()));
        names.push(("root", root));
        names.push(("long", "l".repeat(5000)));
        names.push(("deep", "[".repeat(10_000)));
        names.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        let listener = listen(&stack, 8081);
        let made = list(&api, "/containers/json?all=1", "Id");
        stack.collect_content();
        let before = Inventory::whole(&stack);
        Self { stack, names, made, before, listener }
    }

    /// Puts in what the placeholders stand for; `{fresh}` is an exec that was made just now.
    pub(crate) fn fill(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if text.contains("{fresh}") {
            text = text.replace("{fresh}", &exec(&self.stack, "running"));
        }
        for (name, value) in &self.names {
            text = text.replace(&format!("{{{name}}}"), value);
        }
        text
    }

    /// The opposite of [`Self::fill`]; ids that nobody knows become `{id}`. The beginning of an id
    /// may be any letter, so it is only a word of its own, where the request had it.
    pub(crate) fn veil(&self, text: &str, request: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.names {
            let place = format!("{{{name}}}");
            if value.len() > 10 {
                text = text.replace(value.as_str(), &place);
            } else if request.contains(&place) {
                let words = text.split(' ').map(|word| if word == value { &place } else { word });
                text = words.collect::<Vec<_>>().join(" ");
            }
        }
        veil_ids(&text)
    }

    /// Removes what a request made after all: some are good enough for one engine or the other.
    pub(crate) fn sweep(&self) {
        let api = self.stack.api();
        for container in list(&api, "/containers/json?all=1", "Id") {
            if !self.made.contains(&container) {
                api.delete(&format!("/containers/{container}?force=1&v=1")).expect(204);
            }
        }
        for network in entries(&api, "/networks") {
            if !["bridge", "host", "none"].map(|name| json!(name)).contains(&network["Name"]) {
                let id = network["Id"].as_str().unwrap();
                api.delete(&format!("/networks/{id}")).expect(204);
            }
        }
        for volume in
            api.get("/volumes").expect(200).json()["Volumes"].as_array().into_iter().flatten()
        {
            let name = volume["Name"].as_str().unwrap();
            if name != "used" {
                api.delete(&format!("/volumes/{name}")).expect(204);
            }
        }
        for image in entries(&api, "/images/json") {
            let tags = image["RepoTags"].as_array().into_iter().flatten();
            // Old versions of the API call what has no name so.
            let tags = tags.filter(|tag| *tag != "<none>:<none>");
            let mut tags = tags.map(|tag| tag.as_str().unwrap().to_owned()).peekable();
            if tags.peek().is_none() {
                let id = image["Id"].as_str().unwrap();
                api.delete(&format!("/images/{id}?force=1")).expect(200);
            }
            for tag in tags.filter(|tag| !IMAGES.contains(&&**tag)) {
                api.delete(&format!("/images/{tag}?force=1")).expect(200);
            }
        }
    }

    /// Takes how it is now for how it should be.
    pub(crate) fn settle(&mut self) {
        self.before = Inventory::whole(&self.stack);
    }

    /// Fails for everything that is not as it was.
    pub(crate) fn unchanged(&self) -> Result<(), String> {
        self.before.same(&self.stack)
    }
}

impl std::ops::Deref for World {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        &self.stack
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.stack.sandbox().signal(self.listener, libc::SIGKILL);
        self.stack.sandbox().wait(self.listener);
        let api = self.stack.api();
        for id in list(&api, "/containers/json?all=1", "Id") {
            api.delete(&format!("/containers/{id}?force=1&v=1")).expect(204);
        }
        api.delete("/volumes/used").expect(204);
        for image in ["empty:1", "odd:1"] {
            api.delete(&format!("/images/{image}")).expect(200);
        }
    }
}

fn exec(stack: &Stack, container: &str) -> String {
    let path = format!("/containers/{container}/exec");
    let answer = stack.api().post_json(&path, &json!({"Cmd": ["true"]})).expect(201);
    answer.json()["Id"].as_str().unwrap().to_owned()
}

fn entries(api: &Api, path: &str) -> Vec<Value> {
    api.get(path).expect(200).json().as_array().unwrap().clone()
}

/// One member of everything in a list.
fn list(api: &Api, path: &str, member: &str) -> Vec<String> {
    entries(api, path).iter().map(|one| one[member].as_str().unwrap().to_owned()).collect()
}

fn import(stack: &Stack, name: &str, layer: Vec<u8>) {
    let (repository, tag) = name.split_once(':').unwrap();
    let path = format!("/images/create?fromSrc=-&repo={repository}&tag={tag}");
    stack.api().post_bytes(&path, "application/x-tar", layer).expect(200);
}

/// Programs that cannot be started, each for a reason of its own.
fn odd_files() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, content: &str| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        if kind == tar::EntryType::Symlink {
            header.set_size(0);
            header.set_link_name(content).unwrap();
            tar.append_data(&mut header, path, &[][..]).unwrap();
        } else {
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
    };
    add("etc/", tar::EntryType::Directory, 0o755, "");
    add("etc/noformat", tar::EntryType::Regular, 0o755, "\x01\x02\x03 no program\n");
    add("etc/script", tar::EntryType::Regular, 0o755, "#!/no/such/shell\n");
    add("etc/loop", tar::EntryType::Symlink, 0o777, "loop");
    tar.into_inner().unwrap()
}

/// What two containers' ids begin with. Sixteen digits, so seventeen containers are enough.
fn ambiguous(stack: &Stack, body: &Value) -> String {
    let api = stack.api();
    let mut seen = std::collections::BTreeSet::new();
    loop {
        let first = api.create("", body)[..1].to_owned();
        if !seen.insert(first.clone()) {
            return first;
        }
    }
}

/// A process in the stack's network that holds a port.
fn listen(stack: &Stack, port: u16) -> i32 {
    let log = stack.root().join("log/listener");
    let port_text = port.to_string();
    let command = [parts::busybox().display().to_string(), "nc".to_owned()]
        .into_iter()
        .chain(["-l", "-l", "-p", &port_text, "-e", "true"].map(str::to_owned))
        .collect::<Vec<_>>();
    let pid = stack.sandbox().spawn(&log, &[], &command);
    let wanted = format!(":{port:04X} ");
    let table = stack.sandbox().path(format!("/proc/{pid}/net/tcp6"));
    until("the port is held", || {
        std::fs::read_to_string(&table).is_ok_and(|table| table.contains(&wanted))
    });
    pid
}

/// Whole ids, the twelve digits that stand for one, and the numbers of temporary directories.
fn veil_ids(text: &str) -> String {
    let mut veiled = String::new();
    let mut word = String::new();
    for letter in text.chars().chain(['\0']) {
        if letter.is_ascii_hexdigit() {
            word.push(letter);
            continue;
        }
        veiled += match word.len() {
            64 => "{id}",
            12 => "{short}",
            _ if veiled.ends_with("docker-import-") => "{number}",
            _ => &word,
        };
        word.clear();
        veiled.push(letter);
    }
    veiled.pop();
    veiled
}
