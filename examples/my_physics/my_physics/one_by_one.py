"""Attention written out, one segment after the other: slow, and clear."""

import torch


def one_by_one(q, k, v, segmentation):
    attended, query, key = [q[:0]], 0, 0
    for count, queries, keys in segmentation.runs:
        for _ in range(count):
            of_keys = slice(key, key + keys)
            scores = torch.einsum("mhd, nhd -> hmn", q[query : query + queries], k[of_keys]) / q.shape[-1] ** 0.5
            attended.append(torch.einsum("hmn, nhd -> mhd", scores.softmax(dim=-1), v[of_keys]))
            query, key = query + queries, key + keys
    return torch.cat(attended)
