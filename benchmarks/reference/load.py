"""Load: read the source, write it as it is. Arguments: source, folder."""

import sys
from pathlib import Path

import pandas as pd
import sklearn.linear_model  # noqa: F401 - the reference imports everything everywhere, as such scripts do

source, folder = sys.argv[1], Path(sys.argv[2])
pd.read_csv(source, header=None, dtype=str, keep_default_na=False).to_csv(folder / "raw.csv", index=False, header=False)
