"""Attacks on what clients send and models remember, and audits of privacy."""
