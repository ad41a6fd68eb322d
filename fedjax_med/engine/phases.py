"""Names for what a run spends its time on, as a profiler shows them.

On the host a phase is an annotation of the profile, which costs next to nothing while none is
recorded; inside compiled programs `jax.named_scope` gives every operation the name of its part.
"""

from __future__ import annotations

import jax

PREFIX = "fedjax_med/"

# In the order of a chunk; what `simulation.py` annotates.
HOST_PHASES = (
    "draw cohorts",
    "pack lanes",
    "transfer schedule",
    "dispatch",
    "wait for the devices",
    "evaluate",
    "callbacks",
    "checkpoint",
)


def phase(name: str) -> jax.profiler.TraceAnnotation:
    """A context manager that marks a stretch of host time in a profile."""
    return jax.profiler.TraceAnnotation(PREFIX + name)
