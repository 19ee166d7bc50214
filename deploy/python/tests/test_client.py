"""The client against real coordinators with a real worker, and imitations of what those can't be made to say."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from conftest import ABLATE, MEAN, ROOT, ablate, spec

import ablate_results as ar
from ablate_results._proto import ablate_pb2 as pb
from ablate_results._proto import ablate_pb2_grpc as rpc

SINGLE = '[[sweep]]\nkind = "single"\n'


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Program:
    """A program of ours that runs until it is ended."""

    def __init__(self, log: Path, *args: str | Path, **more: str) -> None:
        self.log = log
        with log.open("a") as file:
            environment = {**os.environ, **more}
            self.process = subprocess.Popen(
                list(map(str, args)), stderr=file, stdout=file, env=environment, cwd=log.parent
            )

    def wait_for(self, words: str) -> None:
        until = time.monotonic() + 60
        while words not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, f"no {words!r} in {self.log.read_text()}"
            time.sleep(0.05)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Service:
    """`ablate serve` on loopback, wanting tokens, with its store in a folder."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder, self.more, self.port = folder, more, free_port()
        self.store = f"sqlite://{folder / 'serve.db'}"
        self.url = f"{'https' if '--tls-cert' in more else 'http'}://127.0.0.1:{self.port}"
        self.tokens = {role: self.token(role) for role in ("worker", "submit", "read")}
        self.start()

    def start(self) -> None:
        (self.folder / "serve.log").write_text("")
        allowed = ["--allow", ROOT / "models", "--allow", self.folder]
        where = ["--listen", f"127.0.0.1:{self.port}", "--store", self.store, "--output", self.folder / "served"]
        log = self.folder / "serve.log"
        self.program = Program(log, ABLATE, "serve", "--require-auth", *where, *allowed, *self.more)
        self.program.wait_for("serving on")

    def token(self, role: str) -> str:
        return ablate("token", "create", "--role", role, "--store", self.store).strip()

    def client(self, role: str = "submit", **more: Any) -> ar.Client:
        return ar.Client(self.url, token=self.tokens[role], **more)


@pytest.fixture(scope="module")
def service(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    service = Service(folder)
    worker = Program(
        folder / "worker.log", ABLATE.with_name("ablate-worker"), "--coordinator", service.url, "--device", "cpu",
        "--threads", "1", ABLATE_TOKEN=service.tokens["worker"],
    )  # fmt: skip
    yield service
    worker.end()
    service.program.end()


def test_an_experiment_is_submitted_followed_and_loaded(service: Service, tmp_path: Path) -> None:
    path = spec(service.folder, "followed", MEAN, SINGLE)
    with service.client() as client:
        job = client.submit(path)
        assert not job.existed
        assert client.submit(path.read_text(), base=path.parent) == (job.id, True), (
            "the same text is the same experiment"
        )
        seen = list(client.watch(job))
        assert seen[-1].state == "done"
        assert seen[-1].ended
        assert seen[-1].fraction == 1
        assert all(not s.ended for s in seen[:-1])
        assert [s.chunks_accepted for s in seen] == sorted(s.chunks_accepted for s in seen)
        single = next(s for s in seen[-1].sweeps if s.name.startswith("single"))
        assert single.subsets_done == single.subsets_total == 72
        assert [s.id for s in client.list() if s.name == "followed"] == [job.id]
        for which in ("followed", job.id[:12], job, seen[-1]):
            assert client.status(which).state == "done"
        assert client.wait(job).state == "done"

        [worker] = client.workers()
        assert worker.devices == ("cpu",)
        assert worker.accepted_chunks >= seen[-1].chunks_accepted
        assert worker.failures == 0

        run = client.load(job, tmp_path / "loaded")
        assert run.id == job.id
        assert len(run.heads) == 144
        assert (tmp_path / "loaded" / "report.html").exists()
        assert list((tmp_path / "loaded" / "figures").glob("heads-*.svg"))
        assert not list((tmp_path / "loaded").glob(".*")), "nothing half-written is left"
        text = ar.load(client.export("followed", tmp_path / "text", "csv"), frames="polars")
        assert text.delta_matrix("reviews").tolist() == run.delta_matrix("reviews").tolist()


def test_the_same_spec_run_alone_gives_the_same_scores(service: Service, made: Path, tmp_path: Path) -> None:
    """Deltas of `ablate run` with more sweeps: other batches, the same numbers but for rounding."""
    with service.client() as client:
        job = client.submit(spec(service.folder, "again", MEAN, SINGLE))
        client.wait(job)
        served = client.load(job, tmp_path).delta_matrix("reviews")
    assert abs(served - ar.load(made).delta_matrix("reviews")).max() < 1e-5


def test_an_experiment_is_paused_resumed_cancelled_and_retried(service: Service) -> None:
    # Big enough that it doesn't end first.
    path = spec(service.folder, "long", MEAN, '[[sweep]]\nkind = "pairs"\n' + SINGLE)
    with service.client() as client:
        job = client.submit(path)
        assert client.pause(job).state == "paused"
        assert client.status("long").state == "paused"
        assert client.resume(job).state == "running"
        assert client.cancel("long").state == "cancelled"
        with pytest.raises(ar.ExperimentFailed, match="long is cancelled") as e:
            client.wait(job)
        assert e.value.state == "cancelled"
        assert client.retry(job).state == "running"
        # Whoever looks no further leaves the stream.
        first = next(iter(client.watch(job)))
        assert first.state == "running"
        client.cancel(job)
        with pytest.raises(ar.Refused, match="cancelled"):
            client.pause(job)


def test_a_watcher_stays_over_a_restart(service: Service) -> None:
    path = spec(service.folder, "restarted", '[ablation]\nmethod = "zero"\n', SINGLE)
    with service.client() as client:
        job = client.submit(path)
        watch = client.watch(job)
        next(watch)
        service.program.process.kill()
        service.program.process.wait()
        service.start()
        assert list(watch)[-1].state == "done"


def test_a_wrong_spec_is_refused_with_its_line(service: Service) -> None:
    with service.client() as client:
        path = spec(service.folder, "wrong", MEAN, '[[sweep]]\nkind = "sideways"\n')
        line = len(path.read_text().splitlines())
        with pytest.raises(ar.Refused, match=rf"(?s)wrong\.toml.*{line}|{line}.*wrong\.toml"):
            client.submit(path)
        with pytest.raises(ar.Refused):
            client.submit('name = "x"\n')
        with pytest.raises(ar.CoordinatorError, match=r"nowhere\.toml.*give a spec's path"):
            client.submit("nowhere.toml")
        with pytest.raises(ar.NoExperiment, match="no experiment is called nothing"):
            client.status("nothing")
        with pytest.raises(ar.NoExperiment):
            next(client.watch("nothing"))
        with pytest.raises(ar.Refused, match="no format"):
            client.export("followed", service.folder / "out", "xlsx")


def test_callers_without_the_right_token_are_refused_by_type(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with ar.Client(service.url) as client, pytest.raises(ar.Unidentified, match="ABLATE_TOKEN") as e:
        client.list()
    assert e.value.reason == "missing"
    wrong = service.tokens["read"][:-4] + "0000"
    with ar.Client(service.url, token=wrong) as client, pytest.raises(ar.Unidentified) as e:
        client.list()
    assert e.value.reason == "unknown"
    assert wrong not in str(e.value)
    with service.client("read") as client:
        assert isinstance(client.list(), tuple)
        with pytest.raises(ar.NotPermitted) as refused:
            client.submit(spec(service.folder, "other", MEAN, SINGLE))
    assert refused.value.roles == ("read",)
    assert refused.value.needed == ("submit",)
    # As the program does, from the environment.
    monkeypatch.setenv("ABLATE_COORDINATOR", service.url)
    monkeypatch.setenv("ABLATE_TOKEN", service.tokens["read"])
    with ar.Client() as client:
        client.list()
    file = service.folder / "token"
    file.write_text(service.tokens["read"] + "\n")
    monkeypatch.setenv("ABLATE_TOKEN", wrong)
    monkeypatch.setenv("ABLATE_TOKEN_FILE", str(file))
    with ar.Client() as client:
        client.list()
    with ar.Client(token=wrong) as client, pytest.raises(ar.Unidentified):
        client.list()


def test_tls(programs: Path, tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    other.cert_pem.write_to_path(str(tmp_path / "other.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    (tmp_path / "cert.pem").write_bytes(b"".join(p.bytes() for p in issued.cert_chain_pems))
    service = Service(tmp_path, "--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    try:
        with service.client("read", ca=tmp_path / "ca.pem") as client:
            assert client.list() == ()
        with (
            service.client(ca=tmp_path / "other.pem") as client,
            pytest.raises(ar.NoCoordinator, match="(?i)certificate"),
        ):
            client.list()
    finally:
        service.program.end()


def test_what_can_not_be_called_is_said_before_any_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for bad in ("", "a:1", "ftp://a:1", "http://", "http://user:pw@a:1", "http://a b:1", "http://a:b"):
        with pytest.raises(ar.CoordinatorError, match="isn't a URL"):
            ar.Client(bad or " ")
    with pytest.raises(ar.CoordinatorError, match="clear text") as e:
        ar.Client("http://db.example:7650", token="s3cret")
    assert "s3cret" not in str(e.value)
    assert "s3cret" not in repr(ar.Client("http://[::1]:7650", token="s3cret"))
    ar.Client("https://db.example:7650", token="s3cret")
    with pytest.raises(ar.CoordinatorError, match="isn't one") as e:
        ar.Client(token="has space")
    assert "has space" not in str(e.value)
    with pytest.raises(ar.CoordinatorError, match="belong together"):
        ar.Client(cert=tmp_path / "cert.pem")
    with pytest.raises(ar.CoordinatorError, match=r"ca .*none\.pem: No such file"):
        ar.Client(ca=tmp_path / "none.pem")
    url = f"http://127.0.0.1:{free_port()}"
    with ar.Client(url) as client, pytest.raises(ar.NoCoordinator, match="no coordinator answers at .*`ablate serve`"):
        client.list()


class Imitation(rpc.ExperimentsServicer):
    """A coordinator that says what it is told to."""

    def __init__(self) -> None:
        self.leading, self.leader, self.calls = True, "", 0
        self.listing: Callable[[Any], Any] = lambda _: pb.ListReply()

    def Leader(self, request: Any, context: Any) -> Any:
        return pb.LeaderReply(leading=self.leading, url=self.leader)

    def List(self, request: Any, context: Any) -> Any:
        self.calls += 1
        return self.listing(context)

    def Export(self, request: Any, context: Any) -> Any:
        for name in ("../outside.csv", "figures/heads.svg", "/far/away/there.csv"):
            yield pb.FilePart(name=name, data=b"inside")


def refuse(context: Any, code: grpc.StatusCode, words: str, details: Any) -> None:
    context.set_trailing_metadata((("grpc-status-details-bin", details.SerializeToString()),))
    context.abort(code, words)


@pytest.fixture
def imitations() -> Iterator[list[tuple[Imitation, str]]]:
    servers, out = [], []
    for _ in range(2):
        server = grpc.server(ThreadPoolExecutor(2))
        said = Imitation()
        rpc.add_ExperimentsServicer_to_server(said, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        out.append((said, f"http://127.0.0.1:{port}"))
    yield out
    for server in servers:
        server.stop(None)


def test_the_one_that_leads_is_followed(imitations: list[tuple[Imitation, str]]) -> None:
    (a, a_url), (b, b_url) = imitations
    a.leading, a.leader = False, b_url
    b.listing = lambda _: pb.ListReply(experiments=[pb.ExperimentStatus(id="b")])
    with ar.Client(a_url) as client:
        assert client.list()[0].id == "b"
    # One that is gone and one that stands by are named before the one that leads.
    with ar.Client(f"http://127.0.0.1:{free_port()}, {a_url},{b_url}") as client:
        assert client.list()[0].id == "b"
        # The lead changes hands between two calls: the first says so, and the other is asked.
        b.leading, b.leader, a.leading = False, a_url, True
        a.listing = lambda _: pb.ListReply(experiments=[pb.ExperimentStatus(id="a")])
        b.listing = lambda context: refuse(context, grpc.StatusCode.UNAVAILABLE, "stands by", pb.NotLeader(url=a_url))
        assert client.list()[0].id == "a"


def test_nobody_leads(imitations: list[tuple[Imitation, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    (a, a_url), _ = imitations
    a.leading, a.leader = False, "http://127.0.0.1:9"
    monkeypatch.setattr("ablate_results._reach.TAKEOVER", 0.5)
    with (
        ar.Client(a_url) as client,
        pytest.raises(ar.NotLeader, match=r"stands by, and http://127\.0\.0\.1:9 leads") as e,
    ):
        client.list()
    assert e.value.url == "http://127.0.0.1:9"


def test_a_limit_is_waited_for_where_that_helps(imitations: list[tuple[Imitation, str]]) -> None:
    (a, url), _ = imitations
    limits = iter([pb.OverLimit(what="calls a second", limit=100, retry_after_ms=40)])

    def listing(context: Any) -> Any:
        if (limit := next(limits, None)) is not None:
            refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "over the limit", limit)
        return pb.ListReply()

    a.listing = listing
    with ar.Client(url) as client:
        assert client.list() == ()
        assert a.calls == 2
        limits = iter([pb.OverLimit(what="experiments", limit=10)])
        with pytest.raises(ar.OverLimit, match="over the limit") as e:
            client.list()
        assert (e.value.what, e.value.limit, e.value.retry_after) == ("experiments", 10, None)


def test_a_file_stays_in_its_folder(imitations: list[tuple[Imitation, str]], tmp_path: Path) -> None:
    with ar.Client(imitations[0][1]) as client:
        client.export("x", tmp_path / "in")
    files = {str(p.relative_to(tmp_path / "in")) for p in (tmp_path / "in").rglob("*") if p.is_file()}
    assert files == {"outside.csv", "figures/heads.svg", "there.csv"}
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
