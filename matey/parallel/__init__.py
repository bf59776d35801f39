"""Ranks, groups, collectives and the DeepSpeed engine: the only package that imports torch.distributed or deepspeed."""

import os

import torch

CPU_WAS_CHOSEN = os.environ.get("DS_ACCELERATOR") == "cpu"
# DeepSpeed would otherwise search for an accelerator, which takes seconds and prints; torch knows already.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
