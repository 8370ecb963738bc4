"""Orders units so that rows that run at the same time cost alike, since early processes wait for the slowest."""

import numpy as np

_WINDOW, _LEAST = 1024, 64
"""Number of micro-steps that are sorted together in a long epoch, and in a short one. Each window is a random part of
the epoch, so that a unit's neighbours in cost change with the epoch."""


def balanced(
    tokens: np.ndarray, patches: np.ndarray, world: int, batch_size: int, before: int, rng: np.random.Generator
) -> np.ndarray:
    """Return a random order of an epoch's units (samples or packs) in which the rows of one micro-step cost alike.

    A micro-step takes world * batch_size units from the endless stream of epochs. `before` is the number of units of
    earlier epochs. The units in micro-steps that the epoch shares with the previous or the next one stay in random
    order.
    """
    group = world * batch_size
    order = rng.permutation(len(tokens))
    first = min(-before % group, len(order))
    groups = (len(order) - first) // group
    if group == 1 or groups == 0:
        return order
    whole = slice(first, first + groups * group)
    costs = np.stack([tokens, patches]).astype(np.int64)
    shares = costs[:, order[whole]] / np.maximum(costs.sum(axis=1, keepdims=True), 1)
    alike = _neighbours(shares, group)
    dealt = alike[_dealt(shares.sum(axis=0)[alike].reshape(groups, group), world)]
    order[whole] = order[whole][dealt[rng.permutation(groups)].ravel()]
    return order


def _neighbours(shares: np.ndarray, group: int) -> np.ndarray:
    """Return an order of the units in which each group of `group` successive units is alike in both costs.

    Each window is halved along the cost in which its units differ more, until it holds one group.
    """
    units = shares.shape[1]
    groups = units // group
    windows = max(1, min(2, groups // _LEAST), groups // _WINDOW)
    borders = np.arange(windows + 1) * groups // windows
    order = np.arange(units)
    while np.diff(borders).max() > 1:
        values, starts = shares[:, order], borders[:-1] * group
        spread = np.maximum.reduceat(values, starts, axis=1) - np.minimum.reduceat(values, starts, axis=1)
        cell = np.repeat(np.arange(len(starts)), np.diff(borders) * group)
        order = order[np.lexsort((values[spread.argmax(axis=0)[cell], np.arange(units)], cell))]
        borders = np.union1d(borders, (borders[:-1] + borders[1:]) // 2)
    return order


def _dealt(costs: np.ndarray, world: int) -> np.ndarray:
    """Return indices into the flattened `costs` ([groups, world * batch_size]) that divide each group into `world` rows
    of nearly equal sums. In every round, the row with the smallest sum so far gets the costliest unit."""
    groups, group = costs.shape
    rounds = np.argsort(-costs, axis=1, kind="stable").reshape(groups, -1, world)
    rows = np.empty((groups, world, group // world), dtype=np.int64)
    sums = np.zeros((groups, world))
    for turn in range(group // world):
        lightest = np.argsort(sums, axis=1, kind="stable")
        np.put_along_axis(rows[:, :, turn], lightest, rounds[:, turn], axis=1)
        sums += np.take_along_axis(costs, rows[:, :, turn], axis=1)
    return rows.reshape(groups, group) + np.arange(groups)[:, None] * group
