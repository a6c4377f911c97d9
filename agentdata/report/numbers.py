"""Numbers as a person reads them: 812, 3,412, 12.3 k, 1.2 M; bytes, times and shares likewise."""

import math

STEPS = ("", "k", "M", "G", "T")
TIMES = (
    *(0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0),
    *(3600.0 * hours for hours in (1, 2, 4, 8, 12, 24, 48, 96, 192, 384, 768, 1536)),
)
"""Seconds that are round times."""


def short(value: float) -> str:
    """A count or a measure with about three digits that count."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) < 10_000:
        return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.3g}"
    return _scaled(value, 1000, " ")


def counted(number: int, unit: str) -> str:
    """A count with its unit, which is given in the plural."""
    return f"{short(number)} {unit if number != 1 else unit.removesuffix('s')}"


def size(value: float) -> str:
    """Bytes."""
    return f"{value:,.0f} B" if abs(value) < 1000 else f"{_scaled(value, 1000, ' ')}B"


def _scaled(value: float, base: int, gap: str) -> str:
    place = min(int(math.log(abs(value), base) + 1e-9), len(STEPS) - 1)
    scaled = value / base**place
    # 999.96 k is 1 M.
    if abs(scaled) >= base - 0.05 and place < len(STEPS) - 1:
        place, scaled = place + 1, scaled / base
    digits = f"{scaled:.0f}" if abs(scaled) >= 100 else f"{scaled:.1f}".removesuffix(".0")
    return f"{digits}{gap}{STEPS[place]}"


def duration(seconds: float) -> str:
    """A time, in the unit that keeps it short."""
    for limit, length, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            scaled = seconds / length
            return f"{f'{scaled:.1f}'.removesuffix('.0') if scaled >= 1 else f'{scaled:.2g}'} {unit}"
    return f"{short(round(seconds / 86_400, 1))} days"


def share(part: float, whole: float) -> str:
    """A part of a whole in percent; a dash where there is no whole."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.5 <= percent < 100:
        return f"{min(percent, 99.9):.1f}%"
    return f"{percent:.1f}%" if 0 < percent < 10 else f"{percent:.0f}%"
