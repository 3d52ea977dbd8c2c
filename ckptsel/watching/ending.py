"""Waiting between two looks, and being asked to end."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress


class Ending:
    """Whether the program that started the watch has ended, or has written a word into its stdin.

    is_attached: else nobody asks, and stdin is left alone.
    """

    def __init__(self, is_attached: bool, sleep: Callable[[float], None] = time.sleep) -> None:
        self._asked = threading.Event()
        self._sleep = sleep
        if is_attached:
            threading.Thread(target=self._read, daemon=True).start()

    @property
    def is_asked(self) -> bool:
        return self._asked.is_set()

    def wait(self, seconds: float) -> None:
        """Sleeps; until it is asked to end, where that comes first."""
        if self.is_asked:
            self._sleep(seconds)
        else:
            self._asked.wait(seconds)

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            os.read(0, 1)  # the stream's own lock would be held when this process ends
        self._asked.set()
