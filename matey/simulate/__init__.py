"""Compact batched solvers that make small, true data of the systems MATEY learns, and writers of official formats.

Nothing of training or forecasting imports this package.
"""
