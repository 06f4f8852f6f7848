"""The linear algebra under numpy and scipy, started so that it behaves where memory is short."""

import os
import resource

# A limit below this leaves too little to load scikit-learn and fit a small table; OpenBLAS may hang there.
LEAST_ADDRESS_SPACE = 512 << 20


def start() -> None:
    """Load OpenBLAS, numpy's and scipy's, and let each take its memory before the data does.

    Later it would end the process with a code of its own if it found none. Raises MemoryError if a limit
    (`ulimit -v`) is below LEAST_ADDRESS_SPACE bytes.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        raise MemoryError
    # More threads hang where memory is short, and their number sways the last bit of a result.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import numpy as np
    from scipy import linalg

    matrix = np.eye(256)
    linalg.cho_solve(linalg.cho_factor(matrix), matrix @ matrix)
