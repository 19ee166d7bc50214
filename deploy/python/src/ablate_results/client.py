"""A client of a coordinator: submit experiments, follow them, fetch their results."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from . import _reach
from ._frames import Frames
from ._proto import ablate_pb2 as pb
from .errors import CoordinatorError, ExperimentFailed, NoCoordinator, NotResults
from .run import Run, load

#: Where the program ``ablate`` looks too.
DEFAULT = "http://127.0.0.1:7650"
#: States in which nothing more comes.
ENDED = ("done", "failed", "cancelled")
#: Seconds that a watcher waits for a coordinator that went away.
PATIENCE = 120.0


class Sweep(NamedTuple):
    """How far a sweep is."""

    #: Its kind, and what tells it from others of its kind.
    name: str
    #: Subsets that are done, and all of them as far as they are planned.
    subsets_done: int
    subsets_total: int
    #: Chunks likewise.
    chunks_done: int
    chunks_total: int
    #: Round of a greedy sweep, from 0, and how many there will be.
    round: int
    rounds: int


class Status(NamedTuple):
    """How far an experiment is."""

    #: Identity: a hash of all that decides its numbers.
    id: str
    #: Name, as in its spec.
    name: str
    #: "running", "paused", "cancelled", "done" or "failed".
    state: str
    #: Its sweeps, in the plan's order.
    sweeps: tuple[Sweep, ...]
    #: Chunks in the plan, results that came in, those that were the first for their chunk, and those that weren't.
    chunks_planned: int
    chunks_computed: int
    chunks_accepted: int
    chunks_duplicate: int
    #: Shards that failed on several workers and were set aside.
    quarantined: int
    #: What went wrong last; empty where nothing did.
    error: str
    #: Folder with its tables on the coordinator's machine, once it is done.
    output: str
    #: Workers that compute for it.
    workers: int

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return self.state in ENDED

    @property
    def fraction(self) -> float:
        """Share of the chunks that are done, 0 to 1, as far as they are planned."""
        return self.chunks_accepted / self.chunks_planned if self.chunks_planned else 0.0


class Worker(NamedTuple):
    """A worker process that is connected."""

    #: Its number at this coordinator.
    id: int
    #: Host and process.
    name: str
    #: Version of its program.
    version: str
    #: Its lanes: "cpu", "cuda:0", …
    devices: tuple[str, ...]
    #: What the numbers of each lane may depend on: device model, driver, libtorch, threads.
    device_classes: tuple[str, ...]
    #: Chunks that it holds, and that were accepted from it.
    leased_chunks: int
    accepted_chunks: int
    #: Times that it failed.
    failures: int
    #: Seconds since it connected; and seconds of all its lanes at work, and waiting between two chunks.
    connected: float
    busy: float
    idle: float


class Submitted(NamedTuple):
    """An experiment that was handed in."""

    #: Its identity.
    id: str
    #: Whether the coordinator had it already: the same spec, model and data are the same experiment.
    existed: bool


#: An experiment: what :meth:`Client.submit` or :meth:`Client.status` gave, or its name, its id, or a unique beginning
#: of the id.
Which = str | Submitted | Status


class Client:
    """Speaks to a coordinator (``ablate serve``); of several, to the one that leads.

    What is left out is taken from the environment, as the program ``ablate`` does: ``ABLATE_COORDINATOR``,
    ``ABLATE_TOKEN_FILE`` or ``ABLATE_TOKEN``, ``ABLATE_CA``, ``ABLATE_CERT`` and ``ABLATE_KEY``. A token is never
    sent in clear text to another machine. Closes with ``close()`` or ``with``.

    Args:
        url: "http://HOST:PORT" or "https://HOST:PORT"; several with commas. Default: http://127.0.0.1:7650.
        token: token of ``ablate token create``.
        ca: file (PEM) with the authorities that sign the coordinator's certificate. Default: the system's.
        token_file: file that holds the token.
        cert: file (PEM) with a certificate that says who calls.
        key: file (PEM) with its private key.

    All methods raise :class:`ablate_results.CoordinatorError`: NoCoordinator, NotLeader, Unidentified, NotPermitted,
    OverLimit, NoExperiment, Refused or Failed.

    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        *,
        token_file: str | os.PathLike[str] | None = None,
        cert: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
    ) -> None:
        """Read files and check URLs; nobody is called yet."""
        self.url: str = url or os.environ.get("ABLATE_COORDINATOR") or DEFAULT
        urls = [u.strip() for u in self.url.split(",")]
        self._line = _reach.Line(urls, _reach.access(token, token_file, ca, cert, key))

    def close(self) -> None:
        """Hang up."""
        self._line.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        """Say whose client it is, without secrets."""
        return f"Client({self.url!r})"

    def submit(self, spec: str | os.PathLike[str], base: str | os.PathLike[str] | None = None) -> Submitted:
        """Hand an experiment in. The same one twice is one experiment.

        Args:
            spec: a spec's path, or its text (TOML): a string with a line break is text.
            base: folder *on the coordinator's machine* that relative paths in the spec begin from. Default: the
                spec's folder, of a text the current one.

        Raises:
            Refused: where the spec is wrong; the message names file and line.

        """
        if isinstance(spec, str) and "\n" in spec:
            text, origin, folder = spec, "the spec", Path()
        else:
            path = Path(spec)
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as e:
                raise CoordinatorError(f"{path}: {e}; give a spec's path, or its text with line breaks") from e
            origin, folder = str(path), path.parent
        base_dir = str(folder.resolve()) if base is None else os.fspath(base)
        reply = self._line.call("Submit", pb.SubmitRequest(spec_toml=text, base_dir=base_dir, origin=origin))
        return Submitted(reply.id, reply.existed)

    def list(self) -> tuple[Status, ...]:
        """List the coordinator's experiments."""
        return tuple(_status(s) for s in self._line.call("List", pb.ListRequest()).experiments)

    def status(self, which: Which) -> Status:
        """Say how far an experiment is."""
        return _status(self._line.call("Status", pb.StatusRequest(id=_id(which))))

    def watch(self, which: Which) -> Iterator[Status]:
        """Follow an experiment: its status now, then after each change, until it has ended.

        Stays over a coordinator's restart or takeover, up to two minutes.
        """
        request = pb.StatusRequest(id=_id(which))
        lost: float | None = None
        seen = False
        while True:
            try:
                first, more = self._line.stream("Watch", request)
                try:
                    for message in _with(first, more):
                        seen, lost = True, None
                        status = _status(message)
                        yield status
                        if status.ended:
                            return
                finally:
                    # Whoever looks no further leaves no stream open.
                    more.cancel()
            except NoCoordinator:
                # Only what was there can come back.
                if not seen:
                    raise
                lost = time.monotonic() if lost is None else lost
                if time.monotonic() - lost > PATIENCE:
                    raise
            self._line.close()
            time.sleep(1)

    def wait(self, which: Which) -> Status:
        """Wait until an experiment is done.

        Raises:
            ExperimentFailed: where it failed or was cancelled.

        """
        last = None
        for status in self.watch(which):
            last = status
        if last is None:
            raise NoCoordinator(f"{self.url} says nothing of {_id(which)}")
        if last.state != "done":
            raise ExperimentFailed(f"{last.name} is {last.state}{': ' + last.error if last.error else ''}", last.state)
        return last

    def pause(self, which: Which) -> Status:
        """Lease nothing more of an experiment until it is resumed."""
        return self._control(which, pb.ControlRequest.PAUSE)

    def resume(self, which: Which) -> Status:
        """Go on with a paused experiment."""
        return self._control(which, pb.ControlRequest.RESUME)

    def cancel(self, which: Which) -> Status:
        """End an experiment; what was computed stays."""
        return self._control(which, pb.ControlRequest.CANCEL)

    def retry(self, which: Which) -> Status:
        """Go on with one that failed or was cancelled, and try quarantined chunks and refusing workers again."""
        return self._control(which, pb.ControlRequest.RETRY)

    def workers(self) -> tuple[Worker, ...]:
        """List the workers that are connected."""
        return tuple(_worker(w) for w in self._line.call("Workers", pb.WorkersRequest()).workers)

    def export(
        self,
        which: Which,
        folder: str | os.PathLike[str],
        format: Literal["parquet", "csv", "json"] = "parquet",
    ) -> Path:
        """Fetch tables, summary and report of an experiment into a folder, which is made; of an unfinished one what
        there is.
        """
        out = Path(folder)
        first, more = self._line.stream("Export", pb.ExportRequest(id=_id(which), format=format))
        out.mkdir(parents=True, exist_ok=True)
        opened: dict[Path, Any] = {}
        try:
            for part in _with(first, more):
                path = out / _within(part.name)
                if path not in opened:
                    path.parent.mkdir(exist_ok=True)
                    opened[path] = _unfinished(path).open("wb")
                opened[path].write(part.data)
        except BaseException:
            for path, file in opened.items():
                file.close()
                _unfinished(path).unlink(missing_ok=True)
            raise
        for path, file in opened.items():
            file.close()
            # Under its own name once it is whole.
            _unfinished(path).replace(path)
        if not opened:
            raise NotResults(f"the coordinator sent no files of {_id(which)}")
        return out

    def load(self, which: Which, folder: str | os.PathLike[str], frames: Frames = "pandas") -> Run:
        """Export an experiment into a folder, and open it there."""
        return load(self.export(which, folder), frames)

    def _control(self, which: Which, action: Any) -> Status:
        return _status(self._line.call("Control", pb.ControlRequest(id=_id(which), action=action)))


def _within(name: str) -> PurePosixPath:
    """Give the place of a file that a coordinator named: in the folder of an export, or in one plain folder of that.

    Any other name would be the coordinator's fault: of it only the last part is taken.
    """
    path = PurePosixPath(name)
    if path.name in ("", "..") or "\\" in name:
        raise CoordinatorError(f"the coordinator sends a file named {name!r}, which is no name")
    plain = path.parent.parent == PurePosixPath() and path.parent.name != ".."
    return path if plain else PurePosixPath(path.name)


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _with(first: Any, more: Any) -> Iterator[Any]:
    """Iterate over a stream whose first message is here, with typed errors."""
    try:
        if first is not None:
            yield first
            yield from more
    except _reach.grpc.RpcError as e:
        raise _reach.typed(e) from e


def _id(which: Which) -> str:
    return which if isinstance(which, str) else which.id


def _status(s: Any) -> Status:
    sweeps = tuple(
        Sweep(w.name, w.subsets_done, w.subsets_total, w.chunks_done, w.chunks_total, w.round, w.rounds)
        for w in s.sweeps
    )
    return Status(
        s.id,
        s.name,
        s.state,
        sweeps,
        s.chunks_planned,
        s.chunks_computed,
        s.chunks_accepted,
        s.chunks_duplicate,
        s.quarantined,
        s.error,
        s.output,
        s.workers,
    )


def _worker(w: Any) -> Worker:
    return Worker(
        w.id,
        w.name,
        w.version,
        tuple(lane.device for lane in w.lanes),
        tuple(lane.device_class for lane in w.lanes),
        w.leased_chunks,
        w.accepted_chunks,
        w.failures,
        w.connected_ms / 1e3,
        w.busy_us / 1e6,
        w.idle_us / 1e6,
    )
