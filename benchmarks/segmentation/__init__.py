"""Outlines of lesions in scans of hospitals with different scanners."""
