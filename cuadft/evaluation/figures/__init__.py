"""Figures of the project: a table or a log in, a matplotlib Figure out; nothing is saved or shown here."""
