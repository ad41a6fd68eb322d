import html.parser
import json
import re

import numpy as np
import pytest

from fedjax_med.reporting.palette import client_style
from fedjax_med.reporting.report import render_report, write_report
from fedjax_med.reporting.summary import best_methods, mean_and_worst, shown_clients

METRICS = {"loss": False, "accuracy": True, "sensitivity": True, "specificity": True}
CONFIGURATION = {"rounds": 4, "client_lr": 0.05, "hidden": [], "clip_norm": None, "shuffle": True}
VERSIONS = {"jax": "1.2.3", "device": "cpu"}


def make_result(num_clients=3, num_evaluations=2):
    """A result as `summarise` makes it, with an undefined metric."""
    rng = np.random.default_rng(0)
    names = [f"Hospital <{i}>" for i in range(num_clients)]

    def metrics():
        return {name: float(rng.uniform(0.2, 0.9)) for name in METRICS}

    def final(**changed):
        return {
            "pooled": metrics() | changed,
            "mean": metrics() | changed,
            "worst": {m: {"client": names[-1], "value": v} for m, v in metrics().items()},
            "per_client": {n: metrics() | changed for n in names},
        }

    finals = {
        "no_model": final(loss=None),
        "local_only": final(),
        "federated": final(),
        "pooled": final(),
    }
    finals["federated"]["per_client"][names[0]]["sensitivity"] = None
    return {
        "dataset": {
            "name": "toy",
            "licence": "CC BY 4.0",
            "source": "generated",
            "citation": "Nobody et al.",
            "label_names": ["well", "ill"],
        },
        "kind": "binary",
        "preprocessing": None,
        "algorithm": "fedprox",
        "started": "2026-01-02T03:04:05+00:00",
        "rounds": 4,
        "main_metric": "accuracy",
        "higher_is_better": METRICS,
        "clients": [
            {
                "name": name,
                "train": 100 + i,
                "validation": 0,
                "test": 10 if i == 0 else 50,
                "label_counts": {"well": 60, "ill": 50 + i},
            }
            for i, name in enumerate(names)
        ],
        "final": finals,
        "curves": {
            "rounds": [2 * (i + 1) for i in range(num_evaluations)],
            "pooled": {m: rng.uniform(0.2, 0.9, num_evaluations).tolist() for m in METRICS},
            "per_client": {
                m: [
                    [None if m == "sensitivity" else float(v) for v in row]
                    for row in rng.uniform(0.2, 0.9, (num_evaluations, num_clients))
                ]
                for m in METRICS
            },
        },
        "excluded": [],
        "performance": {
            "rounds_before": 0,
            "timings_s": {
                "compile_s": 3.0,
                "run_s": 1.0,
                "evaluate_s": 0.5,
                "checkpoint_s": 0.25,
                "total_s": 5.0,
            },
            "seconds_per_round_median": 0.00025,
            "useful_fraction": 0.9583,
            "lanes": 3,
            "placement": "one_device, 1 (cpu)",
            "memory_bytes": {"arguments": 2048, "temporaries": 1024},
        },
    }


def render(result):
    return render_report(result, configuration=CONFIGURATION, versions=VERSIONS)


class Checker(html.parser.HTMLParser):
    """Refuses unbalanced tags; collects ids, links and the text outside of styles."""

    VOID = frozenset(("meta", "br", "hr", "img", "link", "input"))

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.words, self.tags = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.links.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def text():
    return render(make_result())


@pytest.fixture(scope="module")
def page(text):
    return Checker(text)


def test_all_parts_are_there(page):
    for words in (
        "fedprox on toy",
        "2026-01-02 03:04:05 UTC",
        "Federated model: accuracy",
        "over 110 test patients of 3 hospitals",
        "Learning curves",
        "Final results",
        "local only",
        "pooled",
        "no model always predicting the hospital's most frequent outcome",
        "The data",
        "ill",
        "CC BY 4.0",
        "Nobody et al.",
        "Time split: 5.0 s in all",
        "compiling 3.0 s",
        "preparing and other 0.25 s",
        "Useful fraction",
        "95.8",
        "time per round, median 0.25 ms",
        "memory of the training program 3 KiB per device",
        "Configuration",
        "client lr 0.05",
        "clip norm not set",
        "jax 1.2.3",
    ):
        assert words in page.text, words
    assert page.tags.count("svg") == 2


def test_nothing_is_loaded_from_elsewhere(page, text):
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


def test_ids_are_unique_and_links_meet_them(page):
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links} <= set(page.ids)


def test_names_are_escaped(text):
    assert "Hospital &lt;1&gt;" in text and "Hospital <1>" not in text


def test_few_patients_are_marked_and_undefined_values_are_dashes(page):
    assert "Fewer than 30 test patients" in page.text
    assert "10 †" in page.text and "50 †" not in page.text
    assert "\u2013" in page.text and "nan" not in page.text.lower().split()


def test_the_best_of_a_row_is_highlighted_ties_included():
    result = make_result()
    names = [client["name"] for client in result["clients"]]
    for method, value in (("local_only", 0.7), ("federated", 0.9), ("pooled", 0.9001)):
        result["final"][method]["per_client"][names[1]] |= {"accuracy": value, "loss": 1 - value}
    result["final"]["no_model"]["per_client"][names[1]]["accuracy"] = 0.1
    assert best_methods(result, "accuracy", names[1]) == {"federated", "pooled"}
    assert best_methods(result, "loss", names[1]) == {"federated", "pooled"}
    result["final"] = {"federated": result["final"]["federated"]}
    assert best_methods(result, "accuracy", names[1]) == set()


def test_without_baselines():
    result = make_result()
    result["final"] = {"federated": result["final"]["federated"]}
    text = Checker(render(result)).text
    assert "Federated model" in text and "local only" not in text


def test_the_worst_hospital_is_named_beside_pooled_value_and_mean():
    result = make_result()
    federated = result["final"]["federated"]
    federated["mean"]["accuracy"] = 0.777
    federated["worst"]["accuracy"] = {"client": "Hospital <1>", "value": 0.444}
    text = Checker(render(result)).text
    assert "The mean over the hospitals is 0.777" in text
    assert "the worst served, Hospital <1>, has 0.444" in text
    assert "Mean of the hospitals" in text and "Worst hospital" in text
    assert "Worst hospital" not in Checker(render(make_result(num_clients=1))).text


@pytest.mark.parametrize(
    "values, higher, mean, worst",
    [
        ([0.9, 0.3, 0.6], True, 0.6, {"client": "b", "value": 0.3}),
        ([0.9, 0.3, 0.6], False, 0.6, {"client": "a", "value": 0.9}),
        ([np.nan, 0.5, 0.5], True, 0.5, {"client": "b", "value": 0.5}),
        ([0.1, np.inf, np.nan], False, None, {"client": "b", "value": None}),
        ([np.nan, np.nan, np.nan], True, None, {"client": None, "value": None}),
    ],
    ids=["higher", "lower", "undefined", "diverged", "nothing"],
)
def test_the_worst_hospital_follows_what_is_better(values, higher, mean, worst):
    got = mean_and_worst(np.array(values), ("a", "b", "c"), higher)
    assert got == (pytest.approx(mean), worst)


def test_many_clients_are_summed_up():
    result = make_result(40)
    page = Checker(render(result))
    shown, hidden = shown_clients(result)
    assert (len(shown), hidden) == (12, 28)
    assert [client["train"] for client in shown] == list(range(128, 140))  # the largest
    assert "Hospital <39>" in page.text and "Hospital <5>" not in page.text
    assert "28 smaller clients" in page.text and "the band holds 80 %" in page.text


@pytest.mark.parametrize("num_clients, num_evaluations", [(1, 1), (12, 1), (1, 3)])
def test_small_results(num_clients, num_evaluations):
    page = Checker(render(make_result(num_clients, num_evaluations)))
    assert all(f"Hospital <{number}>" in page.text for number in range(num_clients))


def test_resumed_and_excluded_are_told():
    result = make_result()
    result["performance"] |= {"rounds_before": 3, "useful_fraction": None}
    result["performance"]["seconds_per_round_median"] = None
    result["excluded"] = [{"round": 2, "client": "Hospital <1>"}]
    text = Checker(render(result)).text
    assert "resumed after 3 rounds" in text
    assert "not measured" in text
    assert "1 update was left out" in text and "in round 2 from Hospital <1>" in text


def test_a_report_from_the_stored_result_is_the_same_text(tmp_path, text):
    path = tmp_path / "report.html"
    stored = json.loads(json.dumps(make_result()))
    write_report(path, stored, configuration=CONFIGURATION, versions=VERSIONS)
    assert path.read_text() == text


def of_kind(kind, names, main):
    """A result of another kind, with its metrics in place of those of the first."""
    result = make_result()
    taken = dict(zip(METRICS, names, strict=False))

    def renamed(values):
        return {taken[name]: value for name, value in values.items() if name in taken}

    for final in result["final"].values():
        for part in ("pooled", "mean", "worst"):
            final[part] = renamed(final[part])
        final["per_client"] = {n: renamed(v) for n, v in final["per_client"].items()}
    for part in ("pooled", "per_client"):
        result["curves"][part] = renamed(result["curves"][part])
    for client in result["clients"]:
        del client["label_counts"]
    result |= {"kind": kind, "main_metric": main, "higher_is_better": dict.fromkeys(names, False)}
    return result


def test_numbers_and_times_are_not_called_diagnoses():
    result = of_kind("regression", ("mse", "mae"), "mae")
    result["dataset"]["outcome"] = {"mean outcome": 21.25}
    for client in result["clients"]:
        client["outcome"] = {"mean outcome": 30.125}
    number = Checker(render(result)).text
    for words in (
        "Federated model: mean absolute error",
        "lower is better",
        "always predicting the hospital's mean outcome",
        "Mean squared error",
        "mean outcome Hospital <0> 100 10 30.125",
        "All patients 303 110 21.250",
    ):
        assert words in number, words
    result = of_kind("survival", ("loss", "c_index"), "c_index")
    result["dataset"]["outcome"] = {"events": 1234}
    for client in result["clients"]:
        client["outcome"] = {"events": 5}
    time = Checker(render(result)).text
    for words in ("giving everybody the same risk", "C-index", "partial likelihood", "110 1,234"):
        assert words in time, words
    for text in (number, time):
        for words in ("diagnos", "95 % interval", "more than 3", "classified", "frequent"):
            assert words not in text, words


def test_what_left_the_hospitals_is_listed():
    result = make_result()
    assert "Preprocessing" not in Checker(render(result)).text
    message = {"statistic": "median", "num_bytes": 1064, "leaves": "sum", "passes": 11}
    result["preprocessing"] = {
        "columns": 13,
        "features": 15,
        "dropped": ["slope <of>"],
        "indicators": ["chol", "fbs"],
        "standardised": 6,
        "harmonised": 2,
        "target": {"center": 1.5, "scale": 0.25},
        "messages": [message | {"shapes": {"rows": [], "counts": [19, 7]}}],
    }
    text = Checker(render(result)).text
    for words in (
        "13 columns became 15 features",
        "too few values: slope <of>.",
        "was missing, of chol, fbs.",
        "ComBat harmonised 2 columns.",
        "6 numeric features were standardised.",
        "standard deviations (0.250) from its mean (1.500)",
        "median rows, counts [19, 7] 1,064 11 the sum",
    ):
        assert words in text, words


def test_clients_look_different():
    styles = [client_style(i) for i in range(12)]
    assert len(set(styles)) == 12
