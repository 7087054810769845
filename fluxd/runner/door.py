"""The runner's listening socket, whose file is made again when somebody removes it."""

import selectors
import socket
import time
import traceback
from collections.abc import Callable

LOOK_S = 3.0  # between two looks at whether the socket's file is still there


class Door:
    """`make` gives the socket and its file's number; `is_there` tells whether that file is still in its place."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        make: Callable[[], tuple[socket.socket, int]],
        is_there: Callable[[int], bool],
        accept: Callable[[int], None],
    ) -> None:
        self._selector = selector
        self._make = make
        self._is_there = is_there
        self._accept = accept
        self.look_at = time.monotonic() + LOOK_S
        self.listener, self._file = make()
        selector.register(self.listener, selectors.EVENT_READ, accept)

    def look(self) -> None:
        """Make the socket's file again when it is gone: else no daemon would ever find us."""
        if time.monotonic() < self.look_at:
            return
        self.look_at = time.monotonic() + LOOK_S
        if self._is_there(self._file):
            return
        try:
            listener, self._file = self._make()
        except OSError:
            traceback.print_exc()
            return
        self._selector.unregister(self.listener)
        self.listener.close()
        self.listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
