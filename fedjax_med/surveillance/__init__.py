"""Alarms of outbreaks with a stated rate of false ones, and how soon they come."""

from fedjax_med.surveillance.alarms import (
    Detection,
    cusum,
    cusum_threshold,
    detection,
    false_alarm_rate,
    score_threshold,
    scores,
)

__all__ = [
    "Detection",
    "cusum",
    "cusum_threshold",
    "detection",
    "false_alarm_rate",
    "score_threshold",
    "scores",
]
