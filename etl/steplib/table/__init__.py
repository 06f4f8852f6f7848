"""A CSV: whether it is one, its columns, rows, batches, cleaning. A table is a file or the bytes of one."""

import os

# Before numpy is first imported: more OpenBLAS threads hang where memory is short, and their number changes the last
# bit of a result. The threads of the batches use the cores already.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
