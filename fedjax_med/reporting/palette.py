"""Colours that people with colour blindness can tell apart, always the same for a client."""

from __future__ import annotations

# Okabe and Ito, "Color Universal Design", 2008; their yellow is too light for lines on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DASHES = ("-", "--", ":")

INK = "#1f2933"
MUTED = "#52606d"
# Labels of a class, from light to dark in one hue, so that they cannot be taken for clients.
LABELS = ("#cbd2d9", "#52606d", "#9aa5b1", "#323f4b", "#e4e7eb", "#7b8794")


def client_style(index: int) -> tuple[str, str]:
    """Colour and line style of a client; styles change where colours come again."""
    return _COLOURS[index % len(_COLOURS)], _DASHES[index // len(_COLOURS) % len(_DASHES)]
