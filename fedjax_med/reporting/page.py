"""The pieces that HTML reports are made of; a page needs nothing from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from fedjax_med.reporting.palette import client_style

CSS = """
:root { color-scheme: light; --ink: #1f2933; --muted: #52606d; --line: #d9dfe6; --soft: #f5f7fa;
  --blue: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 0 24px 64px; }
header { background: var(--soft); border-bottom: 1px solid var(--line); }
header > div { max-width: 1040px; margin: 0 auto; padding: 32px 24px 28px; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 1.2rem; margin: 44px 0 8px; padding-top: 4px; }
h3 { font-size: 1rem; margin: 24px 0 6px; }
p { margin: 8px 0; max-width: 75ch; }
p.note { max-width: 90ch; }
.muted, figcaption, .note { color: var(--muted); font-size: .9rem; }
.lead { font-size: 1.1rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px;
  margin: 20px 0 4px; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; }
.card b { display: block; font-size: 1.6rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card.main { border-color: var(--blue); box-shadow: inset 0 3px 0 var(--blue); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid var(--muted); font-size: .9rem; vertical-align: bottom; }
tr.total td, tr.total th { border-top: 2px solid var(--muted); font-weight: 600; }
td.best { background: #e3f1fa; font-weight: 700; }
th[scope=row] { font-weight: 500; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr));
  gap: 0 32px; }
.grid > * { min-width: 0; }
.grid table { font-size: .88rem; }
.grid th, .grid td { padding: 5px 7px; }
figure { margin: 12px 0; }
figure svg { display: block; width: 100%; min-width: 620px; height: auto; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px;
  margin-right: .45em; }
.bar { display: flex; height: 26px; border-radius: 4px; overflow: hidden; background: #e4e7eb; }
.bar span { min-width: 1px; }
.mix { width: 220px; height: 16px; display: inline-flex; vertical-align: middle; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 8px 0; padding: 0;
  list-style: none; font-size: .9rem; }
dl.pairs { display: grid; grid-template-columns: max-content 1fr; gap: 2px 20px; margin: 8px 0;
  font-size: .92rem; }
dl.two { grid-template-columns: max-content 1fr max-content 1fr; }
dl.pairs dt { color: var(--muted); }
dl.pairs dd { margin: 0; overflow-wrap: anywhere; }
.warning { border-left: 4px solid #d55e00; background: #fdf3ec; padding: 8px 16px; }
@media (max-width: 800px) { dl.two { grid-template-columns: max-content 1fr; } }
@media (max-width: 600px) { th, td { padding: 5px 8px; } dl.pairs, dl.two { grid-template-columns: 1fr; }
  dl.pairs dd { margin-bottom: 6px; } }
@media print { header { background: none; } h2 { break-after: avoid; }
  figure, table { break-inside: avoid; } }
"""


def page(title: str, header: str, sections: Sequence[str]) -> str:
    """A whole HTML document.

    Args:
      title: of the window.
      header: markup of the banner.
      sections: markup, from `section`.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        f"<header><div>{header}</div></header>\n"
        f"<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def pairs(pairs: Iterable[tuple[str, str]], css: str = "pairs") -> str:
    """Names and values side by side."""
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs)
    return f'<dl class="{css}">{rows}</dl>'


def section(title: str, body: str) -> str:
    """A section with its heading."""
    return f"<section>\n<h2>{text(title)}</h2>\n{body}\n</section>\n"


def figure(svg: str, label: str) -> str:
    """An inline figure, and what it shows for those who cannot see it."""
    labelled = svg.replace("<svg", f'<svg role="img" aria-label="{text(label)}"', 1)
    return f'<figure class="scroll">{labelled}</figure>'


def number(value: float | None) -> str:
    """Three digits, or a dash where there is no value."""
    return "&ndash;" if value is None else f"{value:.3f}"


def text(value: str) -> str:
    """Text as markup."""
    return html.escape(str(value))


def shown(value: Any) -> str:
    """A setting in words."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def swatch(colour: str) -> str:
    """A patch of a colour."""
    return f'<span class="swatch" style="background:{colour}"></span>'


def client(name: str, index: int) -> str:
    """The name of a client with its colour."""
    return f"{swatch(client_style(index)[0])}{text(name)}"
