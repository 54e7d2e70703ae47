"""Packing a global batch: which rows share a micro-batch, and which rank runs it.

A global batch keeps its rows. They are sorted by length only inside it, so padding is saved and ranks are balanced
without a change of the rows that a step learns from. Global batches grouped by length would weigh Eq. 1's tokens by the
lengths of other rows. Lengths are tokens, image tokens included, because a row of thirty words may have an image of a
thousand tokens.

The work of a micro-batch is its padded size, rows times longest row: the positions that the model computes.
"""

from __future__ import annotations

from collections.abc import Sequence

Group = list[int]  # the rows of a micro-batch, as positions in the global batch
MAX_SHARE_OF_WORK = 0.9  # an extra pass is worth its overhead where it lowers a step's work to this share


def pack_rows(
    lengths: Sequence[int], most_rows: int, most_tokens: int | None = None, ranks: int = 1, together: bool = True
) -> list[list[Group]]:
    """Return the micro-batches of each rank, in the order in which they run.

    Ranks of a sharded model run layer by layer ``together``. They get equally many micro-batches: the k-th of all ranks
    have about the same work, and so do the sums of all ranks. A rank with too few gets empty micro-batches. Other ranks
    wait for each other only at the end of a step. They get sums as equal as possible, in any number of micro-batches.

    Args:
        lengths: tokens of each row of the global batch.
        most_rows, most_tokens: bounds of a micro-batch, in rows and in padded tokens (rows times longest row). A row
            longer than ``most_tokens`` gets a micro-batch of its own.
        ranks: number of ranks.
        together: whether ranks wait for each other in each pass.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    max_work = most_rows * lengths[order[-1]] if most_tokens is None else most_tokens
    groups = cut_in_order(order, lengths, most_rows, max_work)
    if ranks == 1:
        return [groups]

    # The fewest passes fill each group, so no group is small and the longest rows make a slow group. An extra pass
    # may balance the ranks better.
    deal, count_work = (_deal_by_pass, work_in_step) if together else (_deal_to_least, most_work)
    passes = -(-len(groups) // ranks)
    fewest = deal(_cut_evenly(order, lengths, most_rows, max_work, ranks * passes), lengths, ranks)
    one_more = deal(_cut_evenly(order, lengths, most_rows, max_work, ranks * (passes + 1)), lengths, ranks)
    saves = count_work(one_more, lengths) < MAX_SHARE_OF_WORK * count_work(fewest, lengths)
    return one_more if saves else fewest


def cut_in_order(order: Sequence[int], lengths: Sequence[int], most_rows: int, max_work: int) -> list[Group]:
    """Cut rows, sorted by length, into groups that are as large as both bounds allow."""
    groups: list[Group] = [[]]
    for i in order:
        if groups[-1] and (len(groups[-1]) == most_rows or (len(groups[-1]) + 1) * lengths[i] > max_work):
            groups.append([])
        groups[-1].append(i)
    return groups


def work(group: Group, lengths: Sequence[int]) -> int:
    """The padded tokens of a micro-batch."""
    return len(group) * max((lengths[i] for i in group), default=0)


def work_in_step(shares: Sequence[Sequence[Group]], lengths: Sequence[int]) -> int:
    """The padded tokens of a step in which all ranks wait for the slowest in each pass."""
    return sum(max(work(group, lengths) for group in groups) for groups in zip(*shares, strict=True))


def most_work(shares: Sequence[Sequence[Group]], lengths: Sequence[int]) -> int:
    """The padded tokens of the slowest rank, which the others wait for at the end of a step."""
    return max(sum(work(group, lengths) for group in share) for share in shares)


def _cut_evenly(order: Sequence[int], lengths: Sequence[int], most_rows: int, max_work: int, count: int) -> list[Group]:
    """Return ``count`` groups of work as equal as possible, the largest first; groups are empty if rows are too few."""
    # The smallest bound that gives at most ``count`` groups makes them most equal. Binary search over the bound.
    low, high = 0, max_work
    while high - low > 1:
        middle = (low + high) // 2
        if len(cut_in_order(order, lengths, most_rows, middle)) <= count:
            high = middle
        else:
            low = middle
    groups = cut_in_order(order, lengths, most_rows, high)

    # With few rows there may be fewer groups than ``count``. Then the largest groups are halved.
    while len(groups) < count and any(len(group) > 1 for group in groups):
        largest = max((group for group in groups if len(group) > 1), key=lambda group: work(group, lengths))
        groups.remove(largest)
        half = len(largest) // 2
        groups += [largest[:half], largest[half:]]
    groups += [[] for _ in range(count - len(groups))]
    return sorted(groups, key=lambda group: -work(group, lengths))


def _deal_by_pass(groups: Sequence[Group], lengths: Sequence[int], ranks: int) -> list[list[Group]]:
    """Deal a group to each rank per pass, the largest to the rank with the least work so far."""
    shares: list[list[Group]] = [[] for _ in range(ranks)]
    done = [0] * ranks  # padded tokens
    for k in range(0, len(groups), ranks):
        least_first = sorted(range(ranks), key=lambda rank: done[rank])
        for rank, group in zip(least_first, groups[k : k + ranks], strict=True):
            shares[rank].append(group)
            done[rank] += work(group, lengths)
    return shares


def _deal_to_least(groups: Sequence[Group], lengths: Sequence[int], ranks: int) -> list[list[Group]]:
    """Deal each group, the largest first, to the rank with the least work so far.

    This is longest processing time first (Graham 1969). A rank without rows has an empty group.
    """
    shares: list[list[Group]] = [[] for _ in range(ranks)]
    done = [0] * ranks  # padded tokens
    for group in groups:
        rank = min(range(ranks), key=lambda rank: (done[rank], len(shares[rank])))
        if group or not shares[rank]:
            shares[rank].append(group)
            done[rank] += work(group, lengths)
    return shares
