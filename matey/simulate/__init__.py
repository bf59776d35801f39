"""Compact batched solvers that make small, true data of the systems MATEY learns, and writers of official formats.

Only ``tools/`` and ``tests/`` import this package, and it imports nothing else of ours.
"""
