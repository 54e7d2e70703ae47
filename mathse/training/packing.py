"""Which rows of a global batch run together: micro-batches by real lengths, and the rank that each runs on.

A global batch comes as it was drawn and stays whole: what is sorted by length, is sorted inside it. So padding is saved
and ranks are balanced without touching what a step learns from; batches that were themselves grouped by length would
weigh Eq. 1's tokens by the company they are in. Lengths are in tokens, an image's included, since a row of thirty words
may have a picture of a thousand tokens.

The work of a micro-batch is its padded size, rows x longest row: the positions that the model computes.
"""

from __future__ import annotations

from collections.abc import Sequence

Group = list[int]  # the rows of a micro-batch, as positions in the global batch
WORTH_A_PASS = 0.9  # one more pass has to bring a step's work down to this


def packed(lengths: Sequence[int], most_rows: int, most_tokens: int | None = None, ranks: int = 1) -> list[list[Group]]:
    """The micro-batches of each rank, all of one number, in the order in which they run.

    Ranks of a sharded model run layer by layer together, so the k-th micro-batches of all ranks are of about the same
    work, and so is each rank's sum. A rank that would have too few gets empty ones.

    Args:
        lengths: tokens of each row of the global batch.
        most_rows, most_tokens: bounds of a micro-batch, in rows and in padded tokens (rows x longest). A row longer
            than ``most_tokens`` runs alone.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    bound = most_rows * lengths[order[-1]] if most_tokens is None else most_tokens
    groups = in_order(order, lengths, most_rows, bound)
    if ranks == 1:
        return [groups]
    passes = -(-len(groups) // ranks)
    # With as many full groups as rows allow none is free to be small, and the longest rows make a slow one.
    fewest, one_more = (_shares(order, lengths, most_rows, bound, ranks, n) for n in (passes, passes + 1))
    saves = work_in_step(one_more, lengths) < WORTH_A_PASS * work_in_step(fewest, lengths)
    return one_more if saves else fewest


def in_order(order: Sequence[int], lengths: Sequence[int], most_rows: int, bound: int) -> list[Group]:
    """Rows, sorted by length, cut into groups that are as large as both bounds allow."""
    groups: list[Group] = [[]]
    for i in order:
        if groups[-1] and (len(groups[-1]) == most_rows or (len(groups[-1]) + 1) * lengths[i] > bound):
            groups.append([])
        groups[-1].append(i)
    return groups


def work(group: Group, lengths: Sequence[int]) -> int:
    """Padded tokens of a micro-batch."""
    return len(group) * max((lengths[i] for i in group), default=0)


def work_in_step(shares: Sequence[Sequence[Group]], lengths: Sequence[int]) -> int:
    """Padded tokens that a step takes when in each pass all ranks wait for the slowest."""
    return sum(max(work(group, lengths) for group in groups) for groups in zip(*shares, strict=True))


def _shares(
    order: Sequence[int], lengths: Sequence[int], most_rows: int, bound: int, ranks: int, passes: int
) -> list[list[Group]]:
    """``passes`` groups for each rank, of work as equal as may be."""
    count = ranks * passes
    # The smallest bound that ``count`` groups can keep makes them most alike.
    low, high = 0, bound
    while high - low > 1:
        middle = (low + high) // 2
        if len(in_order(order, lengths, most_rows, middle)) <= count:
            high = middle
        else:
            low = middle
    groups = in_order(order, lengths, most_rows, high)

    # Where rows are few there may still be less groups than ranks want: the largest are halved.
    while len(groups) < count and any(len(group) > 1 for group in groups):
        largest = max((group for group in groups if len(group) > 1), key=lambda group: work(group, lengths))
        groups.remove(largest)
        half = len(largest) // 2
        groups += [largest[:half], largest[half:]]
    groups += [[] for _ in range(count - len(groups))]

    # Pass by pass, the largest first: within a pass the largest group goes to the rank that has least so far.
    groups.sort(key=lambda group: -work(group, lengths))
    shares: list[list[Group]] = [[] for _ in range(ranks)]
    done = [0] * ranks
    for k in range(0, count, ranks):
        least_first = sorted(range(ranks), key=lambda rank: done[rank])
        for rank, group in zip(least_first, groups[k : k + ranks], strict=True):
            shares[rank].append(group)
            done[rank] += work(group, lengths)
    return shares
