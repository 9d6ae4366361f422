"""Lanes: what may wait for long has threads of its own, so that who plays never waits behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Found = TypeVar("Found")


class Lane:
    """Runs ``threads`` calls at a time. Who waits for one of them holds no thread at all."""

    def __init__(self, name: str, *, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, call: Callable[Given, Found], *given: Given.args, **named: Given.kwargs) -> Found:
        """Return what ``call`` returns, or raise what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *given, **named))
