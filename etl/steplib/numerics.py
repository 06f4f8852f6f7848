"""numpy, scipy and scikit-learn, started so that they behave where memory is short, and start soon."""

import os
import resource
import sys
from types import SimpleNamespace

# A limit below this leaves too little to load scikit-learn and fit a small table; OpenBLAS may hang there.
LEAST_ADDRESS_SPACE = 512 << 20


def start_numpy() -> None:
    """Load numpy, and let its OpenBLAS take its memory before the data does.

    Later it would end the process with a code of its own if it found none. Raises MemoryError if a limit
    (`ulimit -v`) is below LEAST_ADDRESS_SPACE bytes.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        raise MemoryError
    # More threads hang where memory is short, and their number sways the last bit of a result; the batches' threads
    # share the cores already.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import numpy as np

    _ = np.eye(256) @ np.eye(256)


def start() -> None:
    """Load numpy and scipy, which has an OpenBLAS of its own, without pandas. Raises MemoryError as start_numpy."""
    sys.meta_path.insert(0, SimpleNamespace(find_spec=_hide_pandas))
    start_numpy()
    import numpy as np
    from scipy import linalg

    linalg.cho_solve(linalg.cho_factor(np.eye(256)), np.eye(256))


def _hide_pandas(name: str, _path: object, _target: object = None) -> None:
    """Let no library find pandas: scikit-learn imports it if it is there, a quarter of its start, for nothing here."""
    if name == "pandas":
        raise ModuleNotFoundError(name=name)
