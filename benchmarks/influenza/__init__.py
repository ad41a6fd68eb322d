"""Forecasts of influenza-like illness and alarms of outbreaks, federated over regions or states."""
