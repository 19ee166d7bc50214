//! A real PostgreSQL server for tests: in a folder of its own under the system's temporary one, on a free port of
//! loopback and on a socket, gone when the test program is, however it ends. `deploy/setup/postgres.sh` finds or fetches the
//! programs.
#![expect(clippy::expect_used, clippy::panic, reason = "for tests only")]

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Password of the superuser, `postgres`, over TCP. It looks like nothing else, so that a leak can be found.
pub const PASSWORD: &str = "Xyzzy-7c41f0";

/// A running server.
#[derive(Debug)]
pub struct Server {
    folder: TempDir,
    bin: PathBuf,
    port: u16,
    user: Option<&'static str>,
    durable: bool,
    /// A shell that ends the server once its standard input does.
    leash: Option<Child>,
}

/// Where set-up put the programs.
fn programs() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the checkout");
    let bin = root.join(".deps/postgres/bin");
    assert!(
        bin.join("initdb").exists(),
        "there is no PostgreSQL in {}: run deploy/setup/postgres.sh (make test does), which takes an installed one or \
         fetches one",
        bin.display()
    );
    bin
}

fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&out.stdout));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// PostgreSQL doesn't run as root: another user then.
fn other_user() -> Option<&'static str> {
    if run(Command::new("id").arg("-u")) != "0" {
        return None;
    }
    let known = |user: &&&str| Command::new("id").arg(user).output().is_ok_and(|o| o.status.success());
    let found = ["postgres", "nobody"].iter().find(known).copied();
    Some(found.expect("root needs a user `postgres` or `nobody` to run PostgreSQL as"))
}

impl Server {
    /// A server of its own. `durable`: with fsync; else faster, and as safe against everything but the
    /// machine's death.
    ///
    /// # Panics
    /// Where there is no PostgreSQL, with how to get it.
    #[must_use]
    pub fn start(durable: bool) -> Self {
        let (bin, user) = (programs(), other_user());
        let folder = tempfile::Builder::new().prefix("ablate-pg-").tempdir().expect("a temporary folder");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
        let mut server = Self { folder, bin, port: free.port(), user, durable, leash: None };
        let password = server.folder.path().join("password");
        std::fs::write(&password, PASSWORD).expect("the folder can be written");
        if let Some(user) = user {
            drop(run(Command::new("chown").args(["-R", user]).arg(server.folder.path())));
        }
        let mut initdb = server.as_user("initdb");
        initdb.args(["--no-sync", "--no-locale", "--encoding=UTF8", "--username=postgres"]);
        initdb.args(["--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile"]).arg(&password);
        drop(run(initdb.arg("-D").arg(server.data())));
        server.up();
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn as_user(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = match self.user {
            None => Command::new(program),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args([&format!("--reuid={user}"), "--clear-groups"]).arg(program);
                command
            }
        };
        command.current_dir(self.folder.path());
        command
    }

    /// Starts it, after [`Self::crash`], and waits until it answers.
    ///
    /// # Panics
    /// Where it doesn't, with its log.
    pub fn up(&mut self) {
        let log = self.folder.path().join("log");
        let to = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        let server = self.as_user("postgres");
        let mut shell = Command::new("sh");
        // SIGQUIT: at once, and its children too.
        shell
            .arg("-c")
            .arg("\"$@\" & pid=$!; read -r _; kill -QUIT $pid; wait $pid; rm -rf \"$LEFT\"")
            .arg("sh");
        shell.arg(server.get_program()).args(server.get_args()).arg("-D").arg(self.data());
        let fsync = if self.durable { "fsync=on" } else { "fsync=off" };
        let sockets = format!("unix_socket_directories={}", self.folder.path().display());
        shell.args(["-p", &self.port.to_string()]);
        for setting in ["listen_addresses=127.0.0.1", "max_connections=200", fsync, &sockets] {
            shell.args(["-c", setting]);
        }
        shell.env("LEFT", self.folder.path()).current_dir(self.folder.path());
        let child = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(to).spawn();
        self.leash = Some(child.expect("sh starts"));
        let began = Instant::now();
        while self.try_sql("postgres", "SELECT 1").is_err() {
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(60), "PostgreSQL doesn't answer: {}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it as a crash does: no goodbye, recovery at the next [`Self::up`].
    ///
    /// # Panics
    /// Where it doesn't run.
    pub fn crash(&mut self) {
        let mut leash = self.leash.take().expect("it runs");
        let pid = std::fs::read_to_string(self.data().join("postmaster.pid")).expect("it runs");
        let pid = pid.lines().next().unwrap_or_default().to_owned();
        drop(run(Command::new("kill").args(["-QUIT", &pid])));
        // The shell goes on reading: it must not take the folder with it.
        let gone = || !Path::new("/proc").join(&pid).exists();
        let began = Instant::now();
        // A zombie until the shell waits for it: its state says so.
        let dead = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            gone() || stat.rsplit(')').next().is_some_and(|s| s.trim_start().starts_with('Z'))
        };
        while !dead() {
            assert!(began.elapsed() < Duration::from_secs(20), "PostgreSQL doesn't end");
            std::thread::sleep(Duration::from_millis(20));
        }
        // kill −9 of the shell, so that it removes nothing.
        let _ = leash.kill();
        let _ = leash.wait();
    }

    /// URL of a database, over TCP with the superuser's password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// URL of a database over the socket, which hosts without a way to loopback can use.
    #[must_use]
    pub fn socket_url(&self, database: &str) -> String {
        let folder = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@localhost/{database}?host={folder}&port={}", self.port)
    }

    /// URL of a database for another user and password.
    #[must_use]
    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// A new, empty database; its name.
    ///
    /// # Panics
    /// Where it can't be made.
    #[must_use]
    pub fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// Runs statements as the superuser.
    ///
    /// # Panics
    /// Where the server refuses.
    pub fn sql(&self, database: &str, statements: &str) {
        self.try_sql(database, statements).unwrap_or_else(|e| panic!("{statements}: {e}"));
    }

    fn try_sql(&self, database: &str, statements: &str) -> Result<(), sqlx::Error> {
        let statements = statements.to_owned();
        self.with(database, async move |mut one| {
            sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut one).await?;
            one.close().await
        })
    }

    /// Rows of a query, as the superuser.
    ///
    /// # Panics
    /// Where the server refuses.
    #[must_use]
    pub fn rows(&self, database: &str, query: &str) -> Vec<PgRow> {
        let text = query.to_owned();
        let rows = self.with(database, async move |mut one| {
            let rows = sqlx::query(AssertSqlSafe(text)).fetch_all(&mut one).await?;
            one.close().await.map(|()| rows)
        });
        rows.unwrap_or_else(|e| panic!("{query}: {e}"))
    }

    /// On a thread of its own: callers may be in a runtime or not.
    fn with<T: Send>(
        &self,
        database: &str,
        work: impl AsyncFnOnce(PgConnection) -> Result<T, sqlx::Error> + Send,
    ) -> Result<T, sqlx::Error> {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(self.folder.path())
            .port(self.port)
            .username("postgres")
            .database(database);
        std::thread::scope(|s| {
            let all = move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async { work(options.connect().await?).await })
            };
            s.spawn(all).join().expect("no panic")
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut leash) = self.leash.take() {
            drop(leash.stdin.take());
            let _ = leash.wait();
        }
    }
}

/// The server of this test program, without fsync; it ends with the program.
///
/// # Panics
/// As [`Server::start`].
#[must_use]
pub fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(false))
}
