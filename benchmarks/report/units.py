"""How reports write times, sizes, rates and ratios: empty where a figure is unknown."""

from __future__ import annotations

import math

from proto.pieces import MIB


def text(value: float | None, form: str, unit: str = "") -> str:
    """In this format, with a unit after it."""
    return "" if value is None else f"{value:{form}}{unit}"


def seconds(value: float | None) -> str:
    """With four digits that count, but no more than four after the point, and whole from a thousand on."""
    if value is None:
        return ""
    if not 0.0 < value < math.inf:
        return f"{value:g} s"
    return f"{value:,.{max(0, min(4, 3 - math.floor(math.log10(value))))}f} s"


def size(value: float | None) -> str:
    """In the largest binary unit that is not above it."""
    if value is None:
        return ""
    for unit, unit_bytes in (("GiB", MIB * 1024), ("MiB", MIB), ("KiB", 1024)):
        if value >= unit_bytes:
            return f"{value / unit_bytes:.4g} {unit}"
    return f"{value:.0f} B"


def rate(nominal_bytes_s: float, goodput_bytes_s: float) -> str:
    """A link as it was set (0.0: unlimited), and its goodput where that is not the same."""
    nominal = f"{nominal_bytes_s * 8 / 1e6:g} Mbit/s" if nominal_bytes_s else "unlimited"
    if goodput_bytes_s == (nominal_bytes_s or math.inf):
        return nominal
    return f"{nominal} (goodput {goodput_bytes_s * 8 / 1e6:.4g} Mbit/s)"
