"""What the DAGs share; holds no DAG."""

import sys
from pathlib import Path

ETL = Path(__file__).resolve().parents[2] / "etl"
if not ETL.is_dir():
    raise FileNotFoundError(f"expected the whole project around dags/, found no {ETL}; link or copy all of it here")
# The settings and the runs have one owner: the steps' library.
sys.path.append(str(ETL))
