"""How a coordinator is reached, as the program ``ablate`` does it: URLs, TLS, the token, the one that leads, typed
refusals.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from ._extras import need
from .errors import (
    CoordinatorError,
    Failed,
    NoCoordinator,
    NoExperiment,
    NotLeader,
    NotPermitted,
    OverLimit,
    Refused,
    Unidentified,
)

grpc = need("grpc", "the client")
need("google.protobuf", "the client")

from ._proto import ablate_pb2 as pb  # noqa: E402
from ._proto.ablate_pb2_grpc import ExperimentsStub  # noqa: E402

T = TypeVar("T")

#: Seconds that one coordinator may take to say whether it leads.
ANSWER = 5.0
#: Seconds to wait for a leader where only those that stand by answer: a takeover takes less.
TAKEOVER = 15.0
#: Seconds that a client obeys one that says "later" before it gives up.
OBEYS = 60.0
_AGAIN = 0.3
_MAX_MESSAGE = 256 << 20
_DETAILS = "grpc-status-details-bin"


class Access(NamedTuple):
    """What a client shows of itself, and whom it believes. Its text shows no secret."""

    ca: bytes | None
    chain: bytes | None
    key: bytes | None
    token: str | None

    def __repr__(self) -> str:
        """Leave the secrets out."""
        return f"Access(ca={self.ca is not None}, cert={self.chain is not None}, token={self.token is not None})"

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)


def access(
    token: str | None,
    token_file: str | os.PathLike[str] | None,
    ca: str | os.PathLike[str] | None,
    cert: str | os.PathLike[str] | None,
    key: str | os.PathLike[str] | None,
) -> Access:
    """Read what is named, here or in the environment; what is given here goes first."""
    if token is None and token_file is None:
        token, token_file = _set("ABLATE_TOKEN"), _set("ABLATE_TOKEN_FILE")
        # As the program: a file goes before a word.
        token = None if token_file is not None else token
    if token_file is not None and token is None:
        token = _file(token_file, "token_file").decode("utf-8", "replace")
    if token is not None:
        token = token.strip()
        if not token or not all("!" <= c <= "~" for c in token):
            raise CoordinatorError("the token isn't one; give it as `ablate token create` shows it")
    ca = ca if ca is not None else _set("ABLATE_CA")
    if cert is None and key is None:
        cert, key = _set("ABLATE_CERT"), _set("ABLATE_KEY")
    if (cert is None) != (key is None):
        raise CoordinatorError("cert and key belong together; give both")
    return Access(
        None if ca is None else _file(ca, "ca"),
        None if cert is None else _file(cert, "cert"),
        None if key is None else _file(key, "key"),
        token,
    )


def _set(variable: str) -> str | None:
    return os.environ.get(variable) or None


def _file(path: str | os.PathLike[str], what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as e:
        raise CoordinatorError(f"{what} {path}: {e.strerror}") from e


def address(url: str, shown: Access) -> tuple[str, bool]:
    """Read "http://HOST:PORT" or "https://HOST:PORT" as gRPC's address, and whether it is TLS."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    plain = parts.scheme in ("http", "https") and parts.path in ("", "/") and "@" not in parts.netloc
    if not plain or not host or " " in url:
        raise CoordinatorError(
            f"{url!r} isn't a URL of the form http://HOST:PORT or https://HOST:PORT; several go with commas"
        )
    secure = parts.scheme == "https"
    if not secure and shown.token is not None and not _loopback(host):
        raise CoordinatorError(
            f"{url}: a token would travel there in clear text; use https://, or a tunnel to a loopback port"
        )
    shown_host = f"[{host}]" if ":" in host else host
    return f"{shown_host}:{port or (443 if secure else 80)}", secure


def _loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _channel(url: str, shown: Access) -> Any:
    target, secure = address(url, shown)
    options = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE),
        ("grpc.enable_http_proxy", 0),
        # A stream to a coordinator whose process is stopped must end.
        ("grpc.keepalive_time_ms", 5_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    if not secure:
        return grpc.insecure_channel(target, options)
    credentials = grpc.ssl_channel_credentials(shown.ca or _roots(), shown.key, shown.chain)
    return grpc.secure_channel(target, credentials, options)


def _roots() -> bytes | None:
    """Give the system's authorities; gRPC would take a list of its own."""
    file = ssl.get_default_verify_paths().cafile
    return Path(file).read_bytes() if file is not None and Path(file).is_file() else None


def typed(error: Any) -> CoordinatorError:  # noqa: PLR0911  (a case each)
    """Turn a refused call into an error by the message in its details; nothing is read out of its text."""
    code, words = error.code(), error.details() or ""
    details = next((v for k, v in error.trailing_metadata() or () if k == _DETAILS), b"")
    match code:
        case grpc.StatusCode.UNAUTHENTICATED:
            reason = pb.Unidentified.Reason.Name(pb.Unidentified.FromString(details).reason).lower()
            return Unidentified(
                f"the coordinator refuses this caller: {words}; give a token of `ablate token create` (token=, "
                "$ABLATE_TOKEN), or a certificate (cert= and key=)",
                reason,
            )
        case grpc.StatusCode.PERMISSION_DENIED:
            said = pb.NotPermitted.FromString(details)
            return NotPermitted(
                f"the coordinator refuses this call: {words}; ask its operator for a token with that role",
                tuple(said.roles),
                tuple(said.needed),
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            over = pb.OverLimit.FromString(details)
            after = over.retry_after_ms / 1000 if over.retry_after_ms > 0 else None
            return OverLimit(words, over.what, over.limit, after)
        case grpc.StatusCode.UNAVAILABLE if details:
            return NotLeader(words, pb.NotLeader.FromString(details).url)
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED | grpc.StatusCode.CANCELLED:
            return NoCoordinator(words)
        case grpc.StatusCode.NOT_FOUND:
            return NoExperiment(words)
        case (
            grpc.StatusCode.INVALID_ARGUMENT
            | grpc.StatusCode.FAILED_PRECONDITION
            | grpc.StatusCode.UNIMPLEMENTED
            | grpc.StatusCode.OUT_OF_RANGE
        ):
            return Refused(words)
    return Failed(f"the coordinator failed: {words}")


class Line:
    """A connection to the coordinator that leads, found among those that were named and found again when it is
    gone.
    """

    def __init__(self, urls: Sequence[str], shown: Access) -> None:
        """Check the URLs; nobody is called yet."""
        for url in urls:
            address(url, shown)
        self._urls = tuple(urls)
        self._shown = shown
        self._open: tuple[str, Any] | None = None

    def close(self) -> None:
        """Hang up."""
        if self._open is not None:
            self._open[1].close()
        self._open = None

    def call(self, method: str, request: Any) -> Any:
        """Make a call, later where the coordinator says that there were too many, elsewhere where another leads."""
        return self._asked(method, request, lambda reply: reply)

    def stream(self, method: str, request: Any) -> tuple[Any, Any]:
        """Begin a stream of replies; gives the first, or None where there is none, and what iterates over the
        others.
        """

        def begun(replies: Any) -> tuple[Any, Any]:
            # Refusals come with the first.
            return next(replies, None), replies

        return self._asked(method, request, begun)

    def _asked(self, method: str, request: Any, then: Callable[[Any], T]) -> T:
        began = time.monotonic()
        while True:
            known = self._open is not None
            stub = ExperimentsStub(self._leader())
            try:
                return then(getattr(stub, method)(request, metadata=self._shown.metadata))
            except grpc.RpcError as e:
                error = typed(e)
                spent = time.monotonic() - began
                if isinstance(error, OverLimit) and error.retry_after and spent + error.retry_after < OBEYS:
                    time.sleep(error.retry_after)
                elif isinstance(error, NoCoordinator) and (known or spent < TAKEOVER):
                    # It was there: another may lead now. All calls mean the same when they are made twice.
                    self.close()
                    time.sleep(0 if known else _AGAIN)
                else:
                    raise error from e

    def _leader(self) -> Any:
        if self._open is None:
            self._open = self._find()
        return self._open[1]

    def _find(self) -> tuple[str, Any]:
        """Ask those that were named, and those that they name, for the one that leads; waits for a takeover."""
        began = time.monotonic()
        while True:
            queue, asked = list(self._urls), set[str]()
            waiting: CoordinatorError | None = None
            refused: CoordinatorError | None = None
            silent: CoordinatorError | None = None
            while queue:
                url = queue.pop(0)
                if url in asked:
                    continue
                asked.add(url)
                channel, said = _ask(url, self._shown)
                if channel is not None:
                    return url, channel
                if isinstance(said, NotLeader):
                    if said.url and _follows(url, said.url, self._shown):
                        queue.append(said.url)
                    waiting = said
                elif isinstance(said, NoCoordinator):
                    silent = silent or said
                else:
                    refused = refused or said
            if waiting is None:
                # Another may still take over, but not one that refuses.
                raise refused or _nobody(self._urls, silent)
            if time.monotonic() - began > TAKEOVER:
                raise waiting
            time.sleep(_AGAIN)


def _nobody(urls: Sequence[str], silent: CoordinatorError | None) -> NoCoordinator:
    said = f" ({silent})" if silent is not None else ""
    return NoCoordinator(
        f"no coordinator answers at {', '.join(urls)}{said}; start one with `ablate serve`, or name it in url= or "
        "$ABLATE_COORDINATOR"
    )


def _ask(url: str, shown: Access) -> tuple[Any, CoordinatorError | None]:
    """Ask a coordinator whether it leads: its channel if so, or what is in the way."""
    channel = _channel(url, shown)
    began = time.monotonic()
    while True:
        try:
            reply = ExperimentsStub(channel).Leader(pb.LeaderRequest(), timeout=ANSWER, metadata=shown.metadata)
        except grpc.RpcError as e:
            # One of an earlier release knows of no others.
            if e.code() == grpc.StatusCode.UNIMPLEMENTED:
                return channel, None
            error = typed(e)
            over = error.retry_after if isinstance(error, OverLimit) else None
            if over is not None and time.monotonic() - began + over < ANSWER:
                time.sleep(over)
                continue
            channel.close()
            return None, error
        if reply.leading:
            return channel, None
        channel.close()
        by = f"{url} stands by, and {reply.url} leads" if reply.url else f"{url} stands by, and none leads"
        return None, NotLeader(f"no coordinator that leads can be reached from here: {by}", reply.url)


def _follows(named: str, url: str, shown: Access) -> bool:
    """Say whether a coordinator's word that another leads is followed: never from TLS to clear text."""
    try:
        address(url, shown)
    except CoordinatorError:
        return False
    return not named.startswith("https://") or url.startswith("https://")
