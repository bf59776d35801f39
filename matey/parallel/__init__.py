"""Ranks, groups, collectives and the DeepSpeed engine: the only package that imports torch.distributed or deepspeed."""
