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


def packed(
    lengths: Sequence[int], most_rows: int, most_tokens: int | None = None, ranks: int = 1, together: bool = True
) -> list[list[Group]]:
    """The micro-batches of each rank, in the order in which they run.

    Ranks of a sharded model run layer by layer ``together``: they have equally many micro-batches, and the k-th ones of
    all ranks are of about the same work, and so is each rank's sum. A rank that would have too few gets empty ones.
    Ranks that meet at the end of a step alone have sums as equal as may be, in as many micro-batches as that takes.

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
    deal, time_of = (_pass_by_pass, work_in_step) if together else (_to_the_least, most_work)
    cuts = (_alike(order, lengths, most_rows, bound, ranks * n) for n in (passes, passes + 1))
    fewest, one_more = (deal(groups, lengths, ranks) for groups in cuts)
    saves = time_of(one_more, lengths) < WORTH_A_PASS * time_of(fewest, lengths)
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


def most_work(shares: Sequence[Sequence[Group]], lengths: Sequence[int]) -> int:
    """Padded tokens of the slowest rank, which the others wait for at the end of a step."""
    return max(sum(work(group, lengths) for group in share) for share in shares)


def _alike(order: Sequence[int], lengths: Sequence[int], most_rows: int, bound: int, count: int) -> list[Group]:
    """``count`` groups of work as equal as may be, the largest first; empty ones where rows are too few."""
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
    return sorted(groups, key=lambda group: -work(group, lengths))


def _pass_by_pass(groups: Sequence[Group], lengths: Sequence[int], ranks: int) -> list[list[Group]]:
    """Within a pass the largest group goes to the rank that has least so far."""
    shares: list[list[Group]] = [[] for _ in range(ranks)]
    done = [0] * ranks
    for k in range(0, len(groups), ranks):
        least_first = sorted(range(ranks), key=lambda rank: done[rank])
        for rank, group in zip(least_first, groups[k : k + ranks], strict=True):
            shares[rank].append(group)
            done[rank] += work(group, lengths)
    return shares


def _to_the_least(groups: Sequence[Group], lengths: Sequence[int], ranks: int) -> list[list[Group]]:
    """Each group, the largest first, goes to the rank that has least so far (longest processing time first, Graham
    1969); a rank without any has an empty one."""
    shares: list[list[Group]] = [[] for _ in range(ranks)]
    done = [0] * ranks
    for group in groups:
        rank = min(range(ranks), key=lambda rank: (done[rank], len(shares[rank])))
        if group or not shares[rank]:
            shares[rank].append(group)
            done[rank] += work(group, lengths)
    return shares
