"""Computes a function of many items in forked processes, with the results in the order of the items."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

from qwenvl_train.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

_function: Callable[[Any], Any]
"""The function of the processes. They are forked with it, so that only items and results are sent between them."""


def forked_map(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int, killed: str
) -> Iterator[Result]:
    """Yield the result of `function` for each item. With fewer than 2 processes, this process computes them.

    Raises:
        UserError: If a process is killed, with the text `killed`.
    """
    if processes < 2:
        yield from map(function, items)
        return
    global _function
    _function = function
    with ProcessPoolExecutor(processes, get_context("fork"), _end_with_parent) as pool:
        try:
            waiting = iter(items)
            running: list[Future] = [pool.submit(_call, item) for item in islice(waiting, 4 * processes)]
            while running:
                yield running.pop(0).result()
                running += [pool.submit(_call, item) for item in islice(waiting, 1)]
        except BrokenProcessPool:
            raise UserError(killed) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _call(item: Any) -> Any:
    return _function(item)


def _end_with_parent() -> None:
    """End this process when its parent ends.

    A process that outlived a killed parent would hold its sockets open, and other processes would wait on them.
    """

    def watch() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
