"""Fitting and scoring a model on the rows of clear_data.csv."""

import steplib.table  # noqa: F401 - it sets OpenBLAS's threads before numpy is imported
from steplib.errors import NUMPY_NEEDS, require_address_space

require_address_space(NUMPY_NEEDS)
import joblib  # noqa: E402 - it imports numpy; the scripts take it from here

__all__ = ["joblib"]
