"""Imports PyPI's torch on a machine without CUDA libraries: deploy/setup/reference.sh puts empty
libraries in their place, and lazy binding leaves their functions unlooked-up until they are called,
which CPU code never does. Import this before torch."""

import os
import sys

sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)

import torch  # noqa: E402

if __name__ == "__main__":
    print("reference: torch", torch.__version__, float((torch.ones(2, 2, dtype=torch.float64) @ torch.ones(2, 2, dtype=torch.float64)).sum()))
