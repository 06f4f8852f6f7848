"""Numbers as the page shows them."""

import math

# A real share of millions of rows is further from 0 and 1.
ROUNDING = 1e-12


def show_share(value: float | None) -> str:
    """Return a share to three decimals, or as exactly as it takes to differ from 0 and 1."""
    if value is None or math.isnan(value):
        return "-"
    text, distance = f"{value:.3f}", min(value, 1 - value)
    if text not in {"0.000", "1.000"} or distance < ROUNDING:
        return text
    return f"{value:.{1 - math.floor(math.log10(distance))}f}"


def show_digits(value: float) -> str:
    """Return a number to three digits, with an exponent only where it would be long: 1300, not 1.3e+03."""
    return f"{float(f'{value:.3g}'):g}"
