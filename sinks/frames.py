"""Websocket frames (RFC 6455) of messages, made once for all clients that get the same."""

from collections.abc import Sequence

from sinks.ring import Message

_TEXT = 0x81  # a whole message, of text
_MOST_KEPT, _LARGEST_KEPT = 64, 1 << 16


class Frames:
    """A small cache: within a tick, all who want the same events get the same bytes."""

    def __init__(self) -> None:
        self._frames: dict[tuple[Message, ...], bytes] = {}

    def of(self, messages: Sequence[Message]) -> bytes:
        """An unmasked text frame that holds a JSON array of these messages."""
        key = tuple(messages)
        frame = self._frames.get(key)
        if frame is None:
            frame = _frame(",".join([message.text for message in messages]))
            if len(self._frames) >= _MOST_KEPT:
                self._frames.clear()
            if len(frame) <= _LARGEST_KEPT:
                self._frames[key] = frame
        return frame


def _frame(text: str) -> bytes:
    payload = f"[{text}]".encode("ascii")
    size = len(payload)
    if size < 126:
        return bytes((_TEXT, size)) + payload
    if size < 1 << 16:
        return bytes((_TEXT, 126)) + size.to_bytes(2, "big") + payload
    return bytes((_TEXT, 127)) + size.to_bytes(8, "big") + payload
