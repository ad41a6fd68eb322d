"""What was done to the columns before training, and what left every hospital for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedjax_med.reporting import page

_LEAVES = {
    "sum": "the sum",
    "per-site": "each hospital's own",
    "nothing": "nothing",
}


def preprocessing_section(done: Mapping[str, Any]) -> str:
    """Sentences and a table.

    Args:
      done: numbers of `columns`, `features`, `standardised` and `harmonised` columns, names of
        `dropped` columns and of `indicators`, the `target` of a regression, and `messages`.
    """
    sentences = [f"{done['columns']:,} columns became {done['features']:,} features of the model."]
    if done["dropped"]:
        dropped = ", ".join(map(page.text, done["dropped"]))
        sentences.append(f"Dropped for having too few values: {dropped}.")
    if done["indicators"]:
        of = ", ".join(map(page.text, done["indicators"]))
        sentences.append(
            f"Missing values were filled in; further features say whether a value was missing, of {of}."
        )
    if done["harmonised"]:
        sentences.append(f"ComBat harmonised {done['harmonised']:,} columns.")
    if done["standardised"]:
        sentences.append(f"{done['standardised']:,} numeric features were standardised.")
    if done["target"]:
        target = done["target"]
        sentences.append(
            f"The model predicts the outcome in standard deviations ({page.number(target['scale'])}) "
            f"from its mean ({page.number(target['center'])}); all results are in its own unit."
        )
    rows = "".join(
        f'<tr><th scope="row">{page.text(message["statistic"])}</th>'
        f"<td>{page.text(_arrays(message['shapes']))}</td>"
        f"<td>{message['num_bytes']:,}</td><td>{message['passes']:,}</td>"
        f"<td>{_LEAVES[message['leaves']]}</td></tr>"
        for message in done["messages"]
    )
    heads = ("Statistic", "arrays of a hospital", "bytes", "times", "server sees")
    head = "".join(f'<th scope="col">{words}</th>' for words in heads)
    return (
        f"<p>{' '.join(sentences)}</p>"
        '<p class="note">Everything was found from the training patients without pooling them. This '
        "left each hospital; where the server sees the sum over all hospitals, nothing else is "
        "needed:</p>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _arrays(shapes: Mapping[str, list[int]]) -> str:
    """The names of arrays, with their shapes where they have one."""
    return ", ".join(f"{name} {list(shape)}" if shape else name for name, shape in shapes.items())
