"""A small simulation of messages: what closed forms are compared with.

Devices send and receive one message at a time inside a node; what leaves a node goes one after another over its link. Rounds
are in step, or a rank enters a round as soon as its own messages of the round before are sent and received.
"""

from collections import defaultdict


def run(rounds, node_of, inside, between, in_step=True):
    """Return the seconds until all ranks are done with rounds of ``(from, to, bytes)``."""
    ready = defaultdict(float)
    for messages in rounds:
        link_free, start = {}, dict(ready)
        done = defaultdict(float)
        for sender, receiver, num_bytes in messages:
            begin = max(start.get(sender, 0.0), start.get(receiver, 0.0))
            if node_of(sender) == node_of(receiver):
                end = begin + inside.latency + num_bytes / inside.bandwidth
            else:
                begin = max(begin, link_free.get(node_of(sender), 0.0))
                link_free[node_of(sender)] = begin + num_bytes / between.bandwidth
                end = begin + num_bytes / between.bandwidth + between.latency
            done[sender], done[receiver] = max(done[sender], end), max(done[receiver], end)
        last = max(done.values())
        ready.update({rank: last if in_step else max(ready[rank], end) for rank, end in done.items()})
    return max(ready.values(), default=0.0)


def ring(ranks, num_bytes, times=1):
    """Every rank passes a part on to the next, once around (reduce-scatter, all-gather) or twice (all-reduce)."""
    part = num_bytes / len(ranks)
    pairs = list(zip(ranks, ranks[1:] + ranks[:1], strict=True))
    return [[(a, b, part) for a, b in pairs] for _ in range(times * (len(ranks) - 1))]


def halving_and_doubling(ranks, num_bytes):
    """All-reduce of a power of two of ranks: parts are halved with partners ever nearer, then doubled again."""
    rounds, distance, part = [], len(ranks) // 2, num_bytes / 2
    while distance:
        rounds.append([(a, ranks[i ^ distance], part) for i, a in enumerate(ranks)])
        distance, part = distance // 2, part / 2
    return rounds + rounds[::-1]


def pairwise(ranks, num_bytes, node_of):
    """All-to-all: partners on the node first, then the others, one after another."""
    part, p = num_bytes / len(ranks), len(ranks)
    on_node = sum(node_of(rank) == node_of(ranks[0]) for rank in ranks)
    near = [[(r, r - r % on_node + (r + k) % on_node, part) for r in ranks] for k in range(1, on_node)]
    far = []
    for k in range(1, p // on_node):
        for j in range(on_node):
            far.append([(r, ((r // on_node + k) * on_node + (r + j) % on_node) % p, part) for r in ranks])
    return near + far


def at_the_same_time(*schedules):
    """Rounds of several groups side by side."""
    return [[message for messages in together for message in messages] for together in zip(*schedules, strict=True)]
