"""Load: copy the source. Arguments: source, folder."""

import shutil
import sys
from pathlib import Path

source, folder = sys.argv[1], Path(sys.argv[2])
shutil.copyfile(source, folder / "raw.csv")
