//! A full disk, a worker whose model or version differs, damaged and unsupported model files: the built
//! programs say what is wrong, and nothing is lost.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_proto::v1::{
    self, cluster_client::ClusterClient, cluster_server, coordinator_message::Body as Told,
    worker_message::Body,
};
use ablate_tests::program::{
    Cluster, ablate, calm, differing, finish, json, refused, run, said, small_spec, tables, worker,
};
use ablate_tests::{minilm, smollm2};
use std::process::{Command, Stdio};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Shell that may mount, in a mount namespace of its own: as root, or as root of a user namespace.
fn shell(script: &str) -> Command {
    let mut command = Command::new("unshare");
    let root = said({
        let mut id = Command::new("id");
        id.arg("-u");
        id
    });
    command.args(if root.trim() == "0" { ["-m", "sh"] } else { ["-Urm", "sh"] });
    command.args(["-e", "-c", script]);
    command
}

#[test]
fn a_full_disk_stops_a_run_with_what_to_do_and_it_resumes_to_the_same_tables() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    let full = std::fs::metadata(calm().join("state.db")).unwrap().len();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let script = format!(
        "mkdir {disk}; mount -t tmpfs -o size={size} none {disk}\n\
         run() {{ {ablate} run {spec} --out {disk}/out --device cpu --threads 1 \"$@\"; }}\n\
         code=0; run 2> {first} || code=$?; echo $code > {code}\n\
         mount -o remount,size=200m {disk}; run --resume 2> {second}; cp -r {disk}/out {kept}",
        disk = at("disk"),
        size = full * 6 / 10,
        ablate = ablate().get_program().display(),
        spec = spec.display(),
        first = at("first"),
        second = at("second"),
        code = at("code"),
        kept = at("kept"),
    );
    drop(said(shell(&script)));
    let words = std::fs::read_to_string(at("first")).unwrap();
    assert_eq!(std::fs::read_to_string(at("code")).unwrap().trim(), "1", "{words}");
    assert!(words.contains("full") && words.contains("ablate run"), "{words}");
    assert_eq!(differing(&tables(calm()), &tables(&folder.path().join("kept"))), [""; 0]);
    let counted = json(&folder.path().join("kept/run.json"))["chunks"].clone();
    assert_eq!(counted["accepted"], counted["planned"]);
}

#[test]
fn a_worker_whose_model_differs_ends_with_both_hashes_and_the_experiment_waits_for_another() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(minilm().join(name), model.join(name)).unwrap();
    }
    let spec = small_spec(folder.path());
    let text = std::fs::read_to_string(&spec).unwrap();
    std::fs::write(&spec, text.replace(&format!("{:?}", minilm()), "\"model\"")).unwrap();
    let cluster = Cluster::start(folder.path());
    drop(said(cluster.client(&["submit", spec.to_str().unwrap()])));
    let weights = model.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    refused(&finish(&mut worker(&cluster.url())), &["model", "53aa5117"]);
    let status = cluster.status("small");
    assert_eq!(status["state"], "running");
    assert_eq!(status["chunks"]["quarantined"], 0);
}

fn hello(protocol: u32, engine: u32) -> v1::WorkerMessage {
    let lanes = vec![v1::Lane { device: "cpu".into(), device_class: "played".into() }];
    let hello = v1::Hello {
        protocol,
        engine,
        version: "9".into(),
        name: "played".into(),
        lanes,
        session: "s".into(),
    };
    v1::WorkerMessage { body: Some(Body::Hello(hello)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_another_protocol_or_engine_is_told_which_versions_differ() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path());
    let (protocol, engine) = (ablate_common::PROTOCOL_VERSION, ablate_common::ENGINE_VERSION);
    for (p, e) in [(protocol + 1, engine), (protocol, engine + 1)] {
        let mut client = ClusterClient::connect(cluster.url()).await.unwrap();
        let (to, out) = tokio::sync::mpsc::channel(4);
        to.send(hello(p, e)).await.unwrap();
        let mut from = client.work(ReceiverStream::new(out)).await.unwrap().into_inner();
        let Some(Told::Reject(reject)) = from.message().await.unwrap().unwrap().body else {
            panic!("{p}, {e}: not rejected")
        };
        let Some(v1::reject::Kind::VersionDiffers(theirs)) = reject.kind else { panic!("{reject:?}") };
        assert_eq!((theirs.protocol, theirs.engine), (protocol, engine));
    }
}

/// A coordinator of a later version.
struct Later;

#[tonic::async_trait]
impl cluster_server::Cluster for Later {
    type WorkStream = ReceiverStream<Result<v1::CoordinatorMessage, Status>>;
    type BlobStream = ReceiverStream<Result<v1::BlobPart, Status>>;

    async fn work(
        &self,
        _: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let (to, out) = tokio::sync::mpsc::channel(1);
        let differs = v1::VersionDiffers { protocol: 77, engine: 78 };
        let kind = Some(v1::reject::Kind::VersionDiffers(differs));
        let reject = v1::Reject { detail: "later".into(), kind };
        let told = v1::CoordinatorMessage { body: Some(Told::Reject(reject)) };
        to.send(Ok(told)).await.map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(ReceiverStream::new(out)))
    }

    async fn blob(&self, _: Request<v1::BlobRequest>) -> Result<Response<Self::BlobStream>, Status> {
        Err(Status::not_found("no blob"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_refused_by_a_later_coordinator_ends_with_exit_code_2_and_the_versions() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = cluster_server::ClusterServer::new(Later);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let out = tokio::task::spawn_blocking(move || finish(&mut worker(&url))).await.unwrap();
    refused(&out, &["77", "78"]);
}

/// A copy of SmolLM2's file, changed.
fn changed_gguf(folder: &std::path::Path, change: impl FnOnce(&mut Vec<u8>)) -> std::path::PathBuf {
    let mut bytes = std::fs::read(smollm2()).unwrap();
    change(&mut bytes);
    let path = folder.join("changed.gguf");
    std::fs::write(&path, bytes).unwrap();
    let spec = folder.join("gguf.toml");
    let text = "name = \"g\"\n[model]\nsource = \"changed.gguf\"\n[[task]]\nname = \"ioi\"\nkind = \"ioi\"\nexamples = 2\n[ablation]\nmethod = \"zero\"\n[[sweep]]\nkind = \"single\"\n";
    std::fs::write(&spec, text).unwrap();
    spec
}

#[test]
fn truncated_foreign_missing_and_oddly_quantised_gguf_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let refuse = |spec: &std::path::Path, words: &[&str]| {
        let mut command = run(spec, &out, &[]);
        refused(&finish(command.stdin(Stdio::null())), words);
        assert!(!out.exists(), "something was written");
    };
    let spec = changed_gguf(folder.path(), |b| b.truncate(b.len() / 3));
    refuse(&spec, &["changed.gguf", "gguf.toml:"]);
    let spec = changed_gguf(folder.path(), |b| b[..4].copy_from_slice(b"GGML"));
    refuse(&spec, &["changed.gguf", "GGUF"]);
    // The type of a tensor stands after its name, its number of dimensions and its two dimensions.
    let spec = changed_gguf(folder.path(), |b| {
        let name = b"blk.0.ffn_gate.weight";
        let at = b.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 16;
        b[at..at + 4].copy_from_slice(&16u32.to_le_bytes());
    });
    refuse(&spec, &["changed.gguf", "IQ2_XXS", "Q4_1"]);
    std::fs::remove_file(folder.path().join("changed.gguf")).unwrap();
    refuse(&spec, &["changed.gguf", "gguf.toml:3"]);
}

#[test]
fn an_experiment_that_does_not_fit_into_memory_is_refused_with_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    let run_in =
        |out: &str, memory: &str| finish(&mut run(&spec, &folder.path().join(out), &["--memory", memory]));
    refused(&run_in("none", "10MiB"), &["doesn't fit", "cpu", "10.0 MiB are free", "max_tokens", "--memory"]);
    let mut plan = ablate();
    plan.args(["plan", "--json", spec.to_str().unwrap()]);
    let words = said(plan);
    let planned: serde_json::Value = serde_json::from_str(words.lines().last().unwrap()).unwrap();
    let least = planned["bytes_least"].as_u64().unwrap();
    // Chunks aren't divided, so that with too little for one nothing begins. With just enough, states are computed anew for
    // each, and the tables are the same.
    refused(&run_in("less", &(least - 1).to_string()), &["doesn't fit", "a chunk"]);
    let tight = folder.path().join("tight");
    drop(said(run(&spec, &tight, &["--memory", &least.to_string()])));
    assert_eq!(differing(&tables(&tight), &tables(calm())), [""; 0]);
}

#[test]
fn what_is_wrong_before_anything_begins_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    let out = folder.path().join("out");
    let mut none = run(&spec, &out, &[]);
    none.env("ABLATE_WORKER", "/nope");
    let ended = finish(&mut none);
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("/nope"));
    assert!(!out.exists());
    let mut loud = run(&spec, &out, &[]);
    loud.env("ABLATE_LOG", "loud");
    refused(&finish(&mut loud), &["ABLATE_LOG", "loud", "off, error, warn, info, debug, trace"]);
    let mut plan = ablate();
    plan.args(["plan", spec.to_str().unwrap()]);
    plan.stdout(std::fs::File::create("/dev/full").unwrap());
    let ended = finish(&mut plan);
    let words = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(
        ended.status.code() == Some(1) && words.contains("stdout") && words.contains("No space"),
        "{words}"
    );
    // A reader that has gone is no failure.
    let mut sh = Command::new("sh");
    sh.args(["-c", "set -e; \"$1\" plan \"$2\" 2>&1 | head -1", "sh"]);
    sh.arg(ablate().get_program()).arg(&spec);
    assert_eq!(said(sh).lines().count(), 1);
}
