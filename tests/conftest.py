"""What all tests share: the import path, one thread per process, real data where it is at hand, a generator."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

# The root holds folders called operators, problems and datasets. Last in the search path, they cannot shadow a package.
for entry in ("", str(ROOT)):
    while entry in sys.path:
        sys.path.remove(entry)
sys.path.append(str(ROOT))

torch.set_num_threads(1)

# Background jobs of a shell ignore Ctrl-C, and so would the runs that the tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real measurements: SCIDIFF_DATA, else ../shared/data beside the repository. Skips when absent."""
    folder = Path(os.environ.get("SCIDIFF_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set SCIDIFF_DATA to the folder that holds mri/, climate/, ...")
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh CPU generator with a fixed seed."""
    return torch.Generator().manual_seed(20)
