"""Writes pages and pictures of evaluations and training runs."""
