"""Commands, and the one place where errors become a sentence and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from fedjax_med._version import __version__
from fedjax_med.cli.errors import explain
from fedjax_med.cli.options import ProfileOptions, RunOptions, StudyOptions
from fedjax_med.cli.privacy_options import AuditOptions, TradeoffOptions

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130

_DATASET = Parameter(
    help="Name of a dataset (see 'fedjax-med data list'), a folder written by "
    "FederatedDataset.save, a schema file (.toml, .json) of your own tables, or a folder of your own "
    "scans (DICOM, NIfTI) with a sub-folder for each hospital."
)
_DATA_DIR = Parameter(
    name="--data-dir",
    show_default=False,
    help="Folder with local copies of the data files. Default: the folder in the environment "
    "variable FEDJAX_MED_DATA, else they are downloaded once.",
)

app = App(
    name="fedjax-med",
    help="Simulate federated learning between hospitals: each trains on its own patients, only "
    "models are shared.",
    version=f"fedjax-med {__version__}",
    help_format="markdown",
    suppress_keyboard_interrupt=False,
)
data_app = App(name="data", help="The datasets that can be trained on.")
app.command(data_app)


@app.command
def run(
    dataset: Annotated[str, _DATASET],
    /,
    options: Annotated[RunOptions | None, Parameter(name="*")] = None,
) -> int:
    """Train a model across the hospitals of DATASET and write a report.

    Classes, several labels, numbers and survival are learned. Missing values and scales are fitted
    federatedly to training patients. The folder of the run gets the configuration, what was fitted,
    versions, metrics of every round, checkpoints, the result and report.html, in which the federated
    model is compared with each hospital alone, all patients pooled, and no model at all.
    """
    from fedjax_med.cli.run import run_command

    return run_command(dataset, options or RunOptions())


@app.command
def study(
    dataset: Annotated[str, _DATASET],
    /,
    options: Annotated[StudyOptions | None, Parameter(name="*")] = None,
) -> int:
    """Compare federated methods and baselines on DATASET, with intervals, and write a report.

    Patients are divided into training and test patients several times. Each time, missing values
    and scales are fitted federatedly to training patients, and every method is trained with several
    seeds. It is told what hospitals have without federation, what hospitals gain that took no part,
    and whether differences are more than chance. The folder gets result.json, the figures and
    report.html.
    """
    from fedjax_med.cli.study import study_command

    return study_command(dataset, options or StudyOptions())


@app.command
def tradeoff(
    dataset: Annotated[str, _DATASET],
    /,
    options: Annotated[TradeoffOptions | None, Parameter(name="*")] = None,
) -> int:
    """Show what privacy costs on DATASET: utility against epsilon, and write a report.

    Models are trained with differential privacy of each record, or of each hospital, with several
    epsilons, seeds and divisions, and compared with federation without privacy and with hospitals that
    train alone. The folder gets result.json, the figure and report.html.
    """
    from fedjax_med.cli.tradeoff import tradeoff_command

    return tradeoff_command(dataset, options or TradeoffOptions())


@app.command
def audit(
    run: Annotated[Path, Parameter(help="Folder of a `fedjax-med run`.")],
    /,
    options: Annotated[AuditOptions | None, Parameter(name="*")] = None,
) -> int:
    """Attack the training of RUN, hold its claim of privacy against it, and write a report.

    Models are trained again from the run's configuration, with its protection and without.
    Canaries give a lower bound on epsilon; membership, records and shares of outcomes are inferred
    from models and updates. The folder gets audit.json, the figures and report.html.
    """
    from fedjax_med.cli.audit import audit_command

    return audit_command(run, options or AuditOptions())


@app.command
def profile(
    dataset: Annotated[str, _DATASET],
    /,
    options: Annotated[ProfileOptions | None, Parameter(name="*")] = None,
) -> int:
    """Show where the time goes when a model is trained across the hospitals of DATASET.

    Runs a few rounds under JAX's profiler. Prints and plots the speed beside what this machine
    can do at most, measured now, and the time of every part of a round on the host and on the
    devices. The folder gets profile.json, profile.png and a trace that opens in Perfetto
    (https://ui.perfetto.dev).
    """
    from fedjax_med.cli.profile import profile_command

    return profile_command(dataset, options or ProfileOptions())


@data_app.command(name="list")
def list_datasets() -> int:
    """List the datasets: what they hold, how they are had and under which licence."""
    from fedjax_med.cli.data import list_command

    return list_command()


@data_app.command(name="check")
def check_dataset(
    dataset: Annotated[str, _DATASET], /, *, data_dir: Annotated[Path | None, _DATA_DIR] = None
) -> int:
    """Load DATASET, compare its files with their checksums and check every value.

    Prints the number of patients and the outcomes of every hospital.
    """
    from fedjax_med.cli.data import check_command

    return check_command(dataset, data_dir)


def main(tokens: Sequence[str] | None = None) -> int:
    """Runs a command line (that of the process if None) and returns its exit status.

    Whatever the user can put right becomes one sentence on standard error and status 2. Other
    errors are faults of the program and keep their traceback.
    """
    try:
        status = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return status or OK
    except CycloptsError as error:
        return _fail(_sentence(error))
    except KeyboardInterrupt as error:
        print(f"\nInterrupted. {error}".rstrip(), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`| head`); nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        return _fail(sentence)


def _fail(sentence: str) -> int:
    print(f"fedjax-med: {sentence}", file=sys.stderr)
    return BAD_INPUT


def _sentence(error: CycloptsError) -> str:
    return " ".join(str(error).split())
