"""Imports PyPI's torch on a machine without CUDA libraries: deploy/setup/reference.sh makes empty
libraries of their names; those are loaded first, and lazy binding leaves their functions
unlooked-up until they are called, which CPU code never does. Import this before torch."""

import ctypes
import os
import sys
from pathlib import Path

sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)
for stub in sorted((Path(sys.prefix) / "stubs").glob("*.so*")):
    ctypes.CDLL(str(stub), mode=os.RTLD_LAZY | os.RTLD_GLOBAL)

import torch  # noqa: E402

if __name__ == "__main__":
    ones = torch.ones(2, 2, dtype=torch.float64)
    print("reference: torch", torch.__version__, "works" if float((ones @ ones).sum()) == 8.0 else "miscounts")
