"""What can go wrong, as types: every error of this package is an :class:`AblateError`."""

from __future__ import annotations


class AblateError(Exception):
    """The base of every error of this package."""


class ResultsWarning(UserWarning):
    """Something about a result set that a reader should know before believing its numbers."""


class NotResults(AblateError):
    """The folder isn't one of ``ablate run`` or ``ablate export``, or holds no tables yet."""


class MissingTable(AblateError, AttributeError):
    """The run has no such table, because no sweep of it gives one.

    Attributes:
        table: name of the table.

    """

    def __init__(self, table: str, message: str) -> None:
        """Keep the name beside the message."""
        super().__init__(message)
        self.table = table


class Damaged(AblateError):
    """A file can't be read as what its name says."""


class NotThere(AblateError, KeyError):
    """No row for the task, method, unit, head or example that was asked for; the message lists what there is."""

    def __str__(self) -> str:
        """Give the message as it is: a KeyError's own text is quoted."""
        return str(self.args[0]) if self.args else ""


class Ambiguous(AblateError):
    """Several tasks, methods, units or streams fit, and none was named."""


class MissingExtra(AblateError, ImportError):
    """A library that the package doesn't depend on is needed for this, and isn't installed."""


class CoordinatorError(AblateError):
    """A coordinator couldn't be asked, or refused."""


class NoCoordinator(CoordinatorError):
    """Nobody answers at the URLs, or nobody there leads."""


class NotLeader(NoCoordinator):
    """Only coordinators that stand by can be reached.

    Attributes:
        url: the one that leads, as they say; empty where they don't know.

    """

    def __init__(self, message: str, url: str = "") -> None:
        """Keep the leader's URL beside the message."""
        super().__init__(message)
        self.url = url


class Unidentified(CoordinatorError):
    """The coordinator doesn't know who calls.

    Attributes:
        reason: "missing", "unknown" or "expired", said of the token or certificate; "unspecified" of none.

    """

    def __init__(self, message: str, reason: str) -> None:
        """Keep the reason beside the message."""
        super().__init__(message)
        self.reason = reason


class NotPermitted(CoordinatorError):
    """The caller is known, and may not do that.

    Attributes:
        roles: roles that the caller has.
        needed: roles of which one would do.

    """

    def __init__(self, message: str, roles: tuple[str, ...], needed: tuple[str, ...]) -> None:
        """Keep the roles beside the message."""
        super().__init__(message)
        self.roles = roles
        self.needed = needed


class OverLimit(CoordinatorError):
    """A limit of the coordinator is reached.

    Attributes:
        what: what there are too many of.
        limit: how many there may be.
        retry_after: seconds until it may be tried again; None where waiting doesn't help.

    """

    def __init__(self, message: str, what: str, limit: int, retry_after: float | None) -> None:
        """Keep the limit beside the message."""
        super().__init__(message)
        self.what = what
        self.limit = limit
        self.retry_after = retry_after


class NoExperiment(CoordinatorError):
    """The coordinator has no experiment of that name or id, or several."""


class Refused(CoordinatorError):
    """The coordinator won't do that: a spec that is wrong, or an experiment in another state."""


class Failed(CoordinatorError):
    """The coordinator tried and failed."""


class ExperimentFailed(AblateError):
    """An experiment that was waited for ended as failed or cancelled.

    Attributes:
        state: "failed" or "cancelled".

    """

    def __init__(self, message: str, state: str) -> None:
        """Keep the state beside the message."""
        super().__init__(message)
        self.state = state
