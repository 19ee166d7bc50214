"""Generates the Python code of proto/proto/ablate.proto into the package.

Run it with .deps/results/bin/python after a change of the .proto file; a test compares what is committed with it.
"""

import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PROTO = HERE.parents[1] / "proto" / "proto"
PACKAGE = "ablate_results/_proto"
OUT = HERE / "src" / PACKAGE
NAMES = ("ablate_pb2.py", "ablate_pb2.pyi", "ablate_pb2_grpc.py")


def generated() -> dict[str, str]:
    """Give the files by name."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            "protoc",
            # The file is looked up as the package's, so that the modules import each other by their whole names.
            f"-I{PACKAGE}={PROTO}",
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            f"--python_out={folder}",
            f"--pyi_out={folder}",
            f"--grpc_python_out={folder}",
            f"{PACKAGE}/ablate.proto",
        ]
        if protoc.main(arguments) != 0:
            sys.exit(f"error: protoc refuses {PROTO / 'ablate.proto'}; see its message above")
        return {name: (Path(folder) / PACKAGE / name).read_text() for name in NAMES}


def main() -> None:
    """Write them."""
    for name, text in generated().items():
        (OUT / name).write_text(text)
        print(OUT / name)


if __name__ == "__main__":
    main()
