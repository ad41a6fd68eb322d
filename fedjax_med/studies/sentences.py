"""What a study means, in words that its numbers support."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedjax_med.evaluation import metric_title


def design_in_words(settings: Mapping[str, Any]) -> dict[str, str]:
    """A design in words: what examples are, how they were divided, what intervals are over."""
    trained = f"{settings['num_seeds']} seeds, {settings['rounds']} rounds"
    if settings["division"] == "own":
        return {
            "examples": "patients",
            "divided": f"the dataset's own test set, {trained}",
            "how": "Intervals are 95 % over test patients (bootstrap, the mean over seeds). Learning "
            "rates were chosen on the dataset's validation patients, or on a quarter of the training "
            "patients where it has none.",
        }
    share = f"{100 * settings['test']:.0f} %"
    return {
        "examples": "patients",
        "divided": f"{settings['num_splits']} random splits with {share} test patients, {trained}",
        "how": "Intervals are 95 % over random splits, corrected for the patients that splits share "
        "(Nadeau and Bengio 2003). All preprocessing was fitted federatedly to training patients, and "
        "learning rates were chosen on a part of them.",
    }


# Baselines that the chosen method is compared with in words; hospitals alone come first.
AGAINST: Mapping[str, str] = {
    "local": "hospitals that train alone",
    "site_rate": "knowing nothing of a patient but the hospital",
    "best_site": "the best single hospital's model",
    "pooled": "a model of all patients pooled",
}


def sentences(
    result: dict[str, Any],
    against: Mapping[str, str] = AGAINST,
    *,
    chosen_on: str = "patients kept for choosing",
) -> list[str]:
    """What the study means, in words that its intervals support.

    Args:
      result: of a study, without its sentences.
      against: keys of its methods and what they are called; the first is also compared over all
        examples together.
      chosen_on: what the shown method was the best on; empty if it was not chosen.
    """
    main, methods = result["main_metric"], result["methods"]
    title = methods[result["chosen"]]["title"]
    value = methods[result["chosen"]]["metrics"][main]["mean"]
    words = metric_title(main)
    why = f", the best of the federated methods on {chosen_on}," if chosen_on else ""
    said = [f"{title}{why} has a mean {words} over hospitals of {_interval(value)}."]
    higher = result["ideal"][main] != 0
    for name, phrase in against.items():
        if name in result["comparisons"]:
            theirs = methods[name]["metrics"][main]["mean"]["value"]
            said.append(_verdict(phrase, theirs, result["comparisons"][name], higher))
    alone = next(iter(against))
    if alone in result["comparisons_pooled"]:
        theirs = methods[alone]["metrics"][main]["pooled"]["value"]
        found = result["comparisons_pooled"][alone]
        verdict = _verdict(against[alone], theirs, found, higher)
        value = methods[result["chosen"]]["metrics"][main]["pooled"]
        examples = result["about"]["examples"]
        said.append(f"Over all {examples} together it has {_interval(value)}. {verdict}")
    for name in (result["chosen"], "fedavg"):
        if name in result["left_out"]:
            value = result["left_out"][name]["mean"][main]
            said.append(
                f"At hospitals that took no part in training, {methods[name]['title']} has "
                f"{_interval(value)}."
            )
            break
    return said


def _verdict(
    phrase: str, theirs: float | None, found: Mapping[str, float | None], higher: bool
) -> str:
    difference, low, high, p_value = (
        found[key] for key in ("difference", "low", "high", "p_value")
    )
    if theirs is None or difference is None:
        return f"Compared with {phrase}: not defined."
    start = f"Compared with {phrase} ({_number(theirs)}), "
    if low is None or high is None or p_value is None:
        return start + f"the difference is {_number(difference, '+')}; its interval is not defined."
    gain, loss = (low > 0, high < 0) if higher else (high < 0, low > 0)
    verdict = (
        "federation helps" if gain else "federation is worse" if loss else "no difference is shown"
    )
    between = f"{_number(low, '+')} to {_number(high, '+')}"
    return start + f"{verdict}: {_number(difference, '+')} ({between}, p = {p_value:.2g})."


def _interval(found: Mapping[str, float | None]) -> str:
    value, low, high = (found[key] for key in ("value", "low", "high"))
    if low is None or high is None:
        return f"{_number(value)} (its interval is not defined)"
    return f"{_number(value)} (95 % interval {_number(low)} to {_number(high)})"


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "no value"
    return f"{value:{sign}.3f}" if abs(value) < 1000 else f"{value:{sign}.3g}"
