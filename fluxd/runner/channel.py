"""One non-blocking socket in the runner's loop: frames in, one write per turn of the loop out."""

import selectors
import socket
import traceback
from collections.abc import Callable

from fluxd.runner.protocol import FrameReader

READ_SIZE = 256 * 1024


class Channel:
    """`on_payload` gets each frame's payload; `on_end` is called once, at the end of file or on a broken frame."""

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        dirty: "set[Channel]",
        on_payload: Callable[[bytes], None],
        on_end: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._selector = selector
        self._dirty = dirty
        self._on_payload = on_payload
        self._on_end = on_end
        self._frames = FrameReader()
        self._out = bytearray()
        self._waits_to_write = False
        self.closed = False
        selector.register(sock, selectors.EVENT_READ, self.ready)

    def send(self, frame: bytes) -> None:
        """Queue a frame; it goes out at the end of this turn."""
        self._out += frame
        self._dirty.add(self)

    def ready(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self.flush()
        if mask & selectors.EVENT_READ and not self.closed:
            self._read()

    def _read(self) -> bool:
        """Read once. False when there was nothing, or the end."""
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        try:
            for payload in self._frames.feed(data):
                self._on_payload(payload)
        except Exception:
            # It does not speak our language. Whatever the mistake is, the runner and its other attempts outlive it.
            traceback.print_exc()
            data = b""
        if not data:
            self.end()
        return bool(data)

    def drain(self) -> None:
        """Read all that is there, now."""
        while not self.closed and self._read():
            pass

    def flush(self) -> None:
        """Write what is queued, as far as the other side takes it."""
        if self.closed:
            return
        try:
            sent = self._sock.send(self._out) if self._out else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._out.clear()  # the end of file is read next
            return
        del self._out[:sent]
        if bool(self._out) != self._waits_to_write:
            self._waits_to_write = bool(self._out)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
            self._selector.modify(self._sock, events, self.ready)

    @property
    def flushed(self) -> bool:
        return not self._out

    def end(self) -> None:
        """As if the end of file had been read."""
        if not self.closed:
            self.close()
            self._on_end()

    def close(self) -> None:
        """Close without a word."""
        if not self.closed:
            self.closed = True
            self._dirty.discard(self)
            self._selector.unregister(self._sock)
            self._sock.close()

    def forget(self) -> None:
        """In a forked child: let go of the socket and leave the (shared) selector alone."""
        self._sock.close()
