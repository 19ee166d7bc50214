//! What one client may ask for, and which files a service reads for it.

use ablate_proto::v1::{self, experiments_client::ExperimentsClient};
use ablate_tests::program::{finish, refused, said, small_spec};
use ablate_tests::service::Service;
use prost::Message;
use tonic::Code;

fn config(folder: &std::path::Path, text: &str) -> String {
    let path = folder.join("serve.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_calls_too_often_is_told_when_to_come_back_and_one_that_obeys_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "[limits]\ncalls_per_second = 1\n");
    let service = Service::start(folder.path(), "127.0.0.1", &["--config", &config]);
    let mut client = ExperimentsClient::connect(service.url()).await.unwrap();
    let mut over = None;
    for _ in 0..20 {
        if let Err(status) = client.list(v1::ListRequest {}).await {
            over = Some(status);
            break;
        }
    }
    let over = over.expect("20 calls at once are over the limit");
    assert_eq!(over.code(), Code::ResourceExhausted);
    let details = v1::OverLimit::decode(over.details()).unwrap();
    assert_eq!(details.limit, 1);
    assert!((1..=1000).contains(&details.retry_after_ms), "{details:?}");
    // The same address is the same client: it waits as it is told.
    tokio::task::spawn_blocking(move || drop(said(service.client(&["list"])))).await.unwrap();
}

#[test]
fn specs_that_are_too_large_and_experiments_that_are_too_many_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let spec = small_spec(folder.path());
    let config = config(folder.path(), "[limits]\nspec_bytes = 2000\nexperiments = 1\n");
    let service = Service::start(folder.path(), "127.0.0.1", &["--config", &config]);
    let text = std::fs::read_to_string(&spec).unwrap();
    let large = folder.path().join("large.toml");
    for size in [3000, 3_000_000] {
        std::fs::write(&large, format!("{text}# {}\n", "x".repeat(size))).unwrap();
        let said = finish(&mut service.client(&["submit", large.to_str().unwrap()]));
        refused(&said, &["limit"]);
    }
    drop(said(service.client(&["submit", spec.to_str().unwrap()])));
    assert!(said(service.client(&["submit", spec.to_str().unwrap()])).contains("was there already"));
    let other = folder.path().join("other.toml");
    std::fs::write(&other, text.replace("name = \"small\"", "name = \"other\"\nseed = 7")).unwrap();
    refused(&finish(&mut service.client(&["submit", other.to_str().unwrap()])), &["limit of 1 experiments"]);
}

#[test]
fn a_service_reads_only_below_the_folders_that_its_operator_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
    for place in [&inside, &outside] {
        std::fs::create_dir_all(place).unwrap();
    }
    let spec = small_spec(&inside);
    std::fs::copy(inside.join("pairs.jsonl"), outside.join("pairs.jsonl")).unwrap();
    std::os::unix::fs::symlink(outside.join("pairs.jsonl"), inside.join("link.jsonl")).unwrap();
    let models = ablate_tests::root().join("models").canonicalize().unwrap();
    let allow = ["--allow", inside.to_str().unwrap(), "--allow", models.to_str().unwrap()];
    let service = Service::start(folder.path(), "127.0.0.1", &allow);
    let text = std::fs::read_to_string(&spec).unwrap();
    let submit = |text: String| {
        let path = inside.join("other.toml");
        std::fs::write(&path, text).unwrap();
        finish(&mut service.client(&["submit", path.to_str().unwrap()]))
    };
    for data in ["../outside/pairs.jsonl", "link.jsonl", "/etc/passwd.jsonl", "../outside/none.jsonl"] {
        let said = submit(text.replace("\"pairs.jsonl\"", &format!("{data:?}")));
        refused(&said, &["other.toml:7", "leads out of the folders", inside.to_str().unwrap()]);
    }
    let model = format!("{:?}", ablate_tests::minilm());
    refused(&submit(text.replace(&model, "\"/etc/ssl\"")), &["other.toml:3", "leads out of the folders"]);
    let reference =
        text.replace("method = \"mean\"", "method = \"mean\"\nreference = \"../outside/pairs.jsonl\"");
    refused(&submit(reference), &["other.toml:", "leads out of the folders", "reference"]);
    drop(said(service.client(&["submit", spec.to_str().unwrap()])));
}
