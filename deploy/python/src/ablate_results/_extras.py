"""Libraries that the package can do without: imported where they are used, with an error that says how to get
them.
"""

from __future__ import annotations

import importlib
from typing import Any

from .errors import MissingExtra

_EXTRA = {"numpy": "pandas", "pandas": "pandas", "polars": "polars", "matplotlib": "plot", "grpc": "client"}


def need(module: str, what: str) -> Any:
    """Import a module; ``what`` needs it, as the error says."""
    try:
        return importlib.import_module(module)
    except ImportError as e:
        root = module.split(".", maxsplit=1)[0]
        extra = _EXTRA.get(root, "all")
        raise MissingExtra(
            f"{what} needs {root}, which can't be imported ({e}); install it with: "
            f"pip install 'ablate-results[{extra}]'"
        ) from e
