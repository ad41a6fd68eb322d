"""What is left of a run for people: baselines, summaries, figures and the HTML report.

Import the modules by name; the package itself imports nothing, so that a command line that only
writes a file needs neither JAX nor matplotlib.
"""
