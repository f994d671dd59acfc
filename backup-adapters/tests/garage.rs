//! A repository on Garage: three nodes that keep three copies of everything. One of them dies in the middle of a backup.
//!
//! Garage takes the condition `If-None-Match` and ignores it, so only repositories with a single writer work there.
#![cfg(feature = "s3")]

mod support;

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use backup_adapters::OsClock;
use backup_adapters::object::{Address, ObjectOptions, ObjectStorage};
use backup_core::content::EntryPath;
use backup_core::crypto::Argon2Parameters;
use backup_core::entropy::OsEntropy;
use backup_core::keys::Credential;
use backup_core::repository::{
    Backup, BackupKind, BackupOptions, Control, Environment, InitOptions, Repository, VerifyLevel, VerifyOptions,
};
use backup_core::secret::Password;
use backup_core::storage::{Key, PutMode, Storage, StorageError, conformance};
use bytes::Bytes;
use support::skip;
use tempfile::TempDir;

/// Rules that only hold where put-if-absent does.
const CONDITIONAL: [&str; 4] = [
    "create refuses an existing key and changes nothing",
    "of racing creates exactly one wins",
    "an empty object is an object",
    "a created object is whole as soon as it is seen",
];

#[test]
fn a_node_dies_and_the_backup_goes_on() {
    let Some(mut cluster) = Cluster::start() else { return };
    let password = Password::from("three nodes");

    // Everything but put-if-absent is as it must be.
    for (number, rule) in conformance::RULES.iter().filter(|rule| !CONDITIONAL.contains(&rule.name())).enumerate() {
        rule.check(&cluster.storage(0, &format!("rules/{number}"))).unwrap();
    }
    let racing = cluster.storage(0, "rules/create");
    let key = Key::new("twice").unwrap();
    racing.put(&key, Bytes::from_static(b"1"), PutMode::Create).unwrap();
    let second = racing.put(&key, Bytes::from_static(b"2"), PutMode::Create);
    if let Err(StorageError::AlreadyExists) = second {
        panic!("this version of Garage honours If-None-Match: say so in docs/storage.md, and let several writers in");
    }

    // So a repository for several writers is refused before anything is written to it, with the way out.
    let several = init(cluster.storage(0, "several"), &password, false);
    let error = several.begin(BackupOptions::new(BackupKind::Data)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("put-if-absent is ignored") && text.contains("init --single-writer"), "{text}");
    assert!(several.backups().unwrap().is_empty());

    let repository = init(cluster.storage(0, "single"), &password, true);
    let content = noise(48 << 20);
    let backup = {
        let options = BackupOptions::new(BackupKind::Data).with_control(control());
        let mut session = repository.begin(options).unwrap();
        // The node goes when half of the stream was read and the first packs are stored.
        let mut source = Interrupted { content: &content, at: 0, interrupt: Some(|| cluster.kill(2)) };
        session.add_stream(name(), &mut source).unwrap();
        assert!(source.interrupt.is_none());
        session.commit().unwrap()
    };
    assert!(cluster.nodes[2].is_none());
    assert!(restored(&repository, &backup) == content, "the content differs");

    // The dead node comes back, and through it everything can be read.
    cluster.revive(2);
    let through = Repository::open(
        Arc::new(cluster.storage(2, "single")),
        &Credential::from(&password),
        Environment::new(Arc::new(OsClock), Arc::new(OsEntropy)),
    )
    .unwrap();
    assert_eq!(through.backups().unwrap().len(), 1);
    assert!(restored(&through, &backup) == content, "the content differs");
    let report = through.verify(&VerifyOptions::new(VerifyLevel::Content), None, &control()).unwrap();
    assert!(report.ok && !report.partial, "{:?}", report.findings);

    // Real words of a real server about what people do wrong.
    for (options, place, words) in [
        (cluster.options().with_variable("AWS_SECRET_ACCESS_KEY", "0".repeat(64)), "bucket", "access is denied"),
        (cluster.options().with_variable("AWS_ACCESS_KEY_ID", "GK0123456789abcdef01234567"), "bucket", "denied"),
        (cluster.options(), "missing", "denied"),
    ] {
        let storage = ObjectStorage::open(&cluster.address(0, place, "x"), &options).unwrap();
        let error = storage.list("", None).unwrap_err();
        let text =
            format!("{error}: {}", std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default());
        let is_missing = place == "missing" && text.contains("the bucket does not exist");
        assert!(text.contains(words) || text.contains("not accepted") || is_missing, "{text}");
    }
}

fn init(storage: ObjectStorage, password: &Password, single_writer: bool) -> Repository {
    let options = InitOptions::default()
        .with_argon2(Argon2Parameters::minimum_for_tests())
        .with_pack_target(2 << 20)
        .with_single_writer(single_writer);
    let environment = Environment::new(Arc::new(OsClock), Arc::new(OsEntropy));
    Repository::init(Arc::new(storage), &Credential::from(password), &options, environment).unwrap()
}

fn name() -> EntryPath {
    "stream".parse().unwrap()
}

fn control() -> Control {
    Control::default().with_threads(2)
}

fn restored(repository: &Repository, backup: &Backup) -> Vec<u8> {
    let mut content = Vec::new();
    repository.restore_stream(&repository.entry(backup, &name()).unwrap(), &mut content, &control()).unwrap();
    content
}

fn noise(length: usize) -> Vec<u8> {
    let mut content = vec![0; length];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut content);
    content
}

/// Calls `interrupt` in the middle.
struct Interrupted<'a, F> {
    content: &'a [u8],
    at: usize,
    interrupt: Option<F>,
}

impl<F: FnOnce()> Read for Interrupted<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.content.len() / 2
            && let Some(interrupt) = self.interrupt.take()
        {
            interrupt();
        }
        let read = (&self.content[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}

/// Three nodes on this machine, and a bucket that a key may use. Stopped when dropped.
struct Cluster {
    place: TempDir,
    program: PathBuf,
    nodes: [Option<Child>; 3],
    ports: [[u16; 2]; 3],
    ids: Vec<String>,
    key: (String, String),
}

impl Cluster {
    /// `None`, loudly, where Garage is not installed. `GARAGE_BINARY` names it where it is not on the path.
    fn start() -> Option<Self> {
        let program = std::env::var_os("GARAGE_BINARY").map_or_else(|| PathBuf::from("garage"), PathBuf::from);
        if Command::new(&program).arg("--version").output().is_err() {
            skip("Garage is not installed: cargo install garage --locked, and name it in GARAGE_BINARY");
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        let ports = free_ports();
        let key = (String::new(), String::new());
        let mut cluster = Self { place, program, nodes: [None, None, None], ports, ids: Vec::new(), key };
        for number in 0..3 {
            cluster.configure(number);
            cluster.launch(number);
        }
        cluster.ids =
            (0..3).map(|number| cluster.until_it_works(number, &["node", "id", "-q"]).trim().to_owned()).collect();
        cluster.connect(0);
        for id in &cluster.ids {
            let id = id.split('@').next().unwrap();
            cluster.run(0, &["layout", "assign", "-z", "here", "-c", "1G", id]);
        }
        cluster.run(0, &["layout", "apply", "--version", "1"]);
        cluster.until_it_works(0, &["bucket", "create", "bucket"]);
        let key = cluster.run(0, &["key", "create", "tests"]);
        let field = |name: &str| {
            let line = key.lines().find_map(|line| line.trim().strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} is not in {key}")).trim().to_owned()
        };
        cluster.key = (field("Key ID:"), field("Secret key:"));
        cluster.run(0, &["bucket", "allow", "--read", "--write", "bucket", "--key", "tests"]);
        Some(cluster)
    }

    fn directory(&self, number: usize) -> PathBuf {
        self.place.path().join(number.to_string())
    }

    fn configure(&self, number: usize) {
        let directory = self.directory(number);
        fs::create_dir(&directory).unwrap();
        let [rpc, s3] = self.ports[number];
        let shown = directory.display();
        let configuration = format!(
            "metadata_dir = \"{shown}/meta\"\ndata_dir = \"{shown}/data\"\ndb_engine = \"sqlite\"\n\
             metadata_fsync = false\ndata_fsync = false\nreplication_factor = 3\n\
             rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\nrpc_secret = \"{}\"\n\
             [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"127.0.0.1:{s3}\"\nroot_domain = \".s3.test\"\n",
            "5e".repeat(32),
        );
        fs::write(directory.join("garage.toml"), configuration).unwrap();
    }

    fn command(&self, number: usize) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.directory(number).join("garage.toml")).env("RUST_LOG", "garage=error");
        command
    }

    fn launch(&mut self, number: usize) {
        let log = || File::options().create(true).append(true).open(self.directory(number).join("log")).unwrap();
        let node = self.command(number).arg("server").stdin(Stdio::null()).stdout(log()).stderr(log()).spawn().unwrap();
        self.nodes[number] = Some(node);
        self.until_it_answers(number);
    }

    /// The node is gone from one moment to the next.
    fn kill(&mut self, number: usize) {
        let mut node = self.nodes[number].take().unwrap();
        node.kill().unwrap();
        node.wait().unwrap();
    }

    fn revive(&mut self, number: usize) {
        self.launch(number);
        // By itself it looks for the others once a minute.
        self.connect(number);
    }

    /// The node knows all others when this returns.
    fn connect(&self, number: usize) {
        for id in (0..3).filter(|other| *other != number).map(|other| &self.ids[other]) {
            self.until_it_works(number, &["node", "connect", id]);
        }
    }

    fn run(&self, number: usize, arguments: &[&str]) -> String {
        self.attempt(number, arguments).unwrap_or_else(|error| panic!("garage {arguments:?}: {error}\n{}", self.logs()))
    }

    fn attempt(&self, number: usize, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(number).args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Nodes need a moment to find each other. This waits for them and judges no time.
    fn until_it_works(&self, number: usize, arguments: &[&str]) -> String {
        let mut last = String::new();
        for _ in 0..300 {
            match self.attempt(number, arguments) {
                Ok(output) => return output,
                Err(error) => last = error,
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("garage {arguments:?}: {last}\n{}", self.logs());
    }

    fn until_it_answers(&self, number: usize) {
        for port in self.ports[number] {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let answers = (0..600).any(|_| {
                let answers = TcpStream::connect(address).is_ok();
                if !answers {
                    thread::sleep(Duration::from_millis(100));
                }
                answers
            });
            assert!(answers, "node {number} does not listen: {}", self.logs());
        }
    }

    fn logs(&self) -> String {
        (0..3).map(|number| fs::read_to_string(self.directory(number).join("log")).unwrap_or_default()).collect()
    }

    fn options(&self) -> ObjectOptions {
        ObjectOptions::default()
            .with_variable("AWS_ACCESS_KEY_ID", &self.key.0)
            .with_variable("AWS_SECRET_ACCESS_KEY", &self.key.1)
            .with_variable("AWS_ALLOW_HTTP", "true")
    }

    fn address(&self, number: usize, bucket: &str, prefix: &str) -> Address {
        let [_, s3] = self.ports[number];
        let url = format!("s3://{bucket}/{prefix}?region=garage&endpoint=http://127.0.0.1:{s3}");
        Address::parse(&url).unwrap().unwrap()
    }

    fn storage(&self, number: usize, prefix: &str) -> ObjectStorage {
        ObjectStorage::open(&self.address(number, "bucket", prefix), &self.options()).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for number in 0..3 {
            if self.nodes[number].is_some() {
                self.kill(number);
            }
        }
    }
}

/// Held all at once, so that they are different.
fn free_ports() -> [[u16; 2]; 3] {
    let listeners = [(); 3].map(|()| [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap()));
    listeners.map(|pair| pair.map(|listener| listener.local_addr().unwrap().port()))
}
