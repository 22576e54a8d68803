"""The items of a session, in their order, and what can be told of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from auricle.audio.formats import SAMPLE_RATE
from auricle.errors import ClientError
from auricle.protocol.events import ServerEvent
from auricle.session.context import RecentSpeech
from auricle.session.item import SessionItem

KEPT_ITEMS = 1_000
"""How many items a session remembers. Older ones can't be retrieved any more."""


class Conversation:
    """All items. Owned by one session."""

    def __init__(self, kept_audio_s: float) -> None:
        """`kept_audio_s`: of how many seconds of finished items, the newest ones, the audio is kept."""
        self._kept_samples = round(kept_audio_s * SAMPLE_RATE)
        self._items: dict[str, SessionItem] = {}
        self._unfinished: deque[SessionItem] = deque()
        self._with_audio: deque[SessionItem] = deque()
        self.items_added = 0
        self.recent = RecentSpeech()
        """What was said last in its turns."""
        self.open_item: SessionItem | None = None
        """The item that the audio after the last commit will become, once there is something to know of it."""

    @property
    def last_id(self) -> str | None:
        """The newest item."""
        return next(reversed(self._items), None)

    @property
    def unfinished(self) -> list[SessionItem]:
        """The items whose text is not complete, oldest first."""
        return [item for item in self._unfinished if not item.is_finished]

    @property
    def undecoded_samples(self) -> int:
        """The length of those, as far as they are committed."""
        return sum(item.duration_samples for item in self.unfinished)

    def get(self, item_id: str) -> SessionItem | None:
        """A committed item that is remembered."""
        return self._items.get(item_id)

    def undecoded(self, item_id: str) -> SessionItem | None:
        """The item of that name, committed or not, if some of its text is still to be found."""
        if self.open_item and self.open_item.id == item_id:
            return self.open_item
        item = self.get(item_id)
        return None if item is None or item.is_finished else item

    def find(self, item_id: str, deed: str, code: str) -> SessionItem:
        """A committed item that is remembered. Raises ClientError: `deed` can't be done, there is none."""
        item = self.get(item_id)
        if item is None:
            raise ClientError(code, f"Error {deed} item: the item with id '{item_id}' does not exist.")
        return item

    def add(self, item: SessionItem) -> None:
        """An item is committed. It is not finished."""
        self.open_item = None
        self._items[item.id] = item
        self._unfinished.append(item)
        self.items_added += 1
        while len(self._items) > KEPT_ITEMS and (oldest := next(iter(self._items.values()))).is_finished:
            del self._items[oldest.id]

    def tell(self, item: SessionItem, events: Sequence[ServerEvent]) -> list[ServerEvent]:
        """There is more of an item's text. Returns what can be told now."""
        item.unsent += events
        return self._tell()

    def finish(self, item: SessionItem, last_events: Sequence[ServerEvent]) -> list[ServerEvent]:
        """An item's text is complete or will never be. Returns what can be told now."""
        item.unsent += last_events
        item.is_finished = True
        item.decoding.release()
        self._with_audio.append(item)
        kept_samples = sum(item.samples.size for item in self._with_audio)
        while kept_samples > self._kept_samples:
            oldest = self._with_audio.popleft()
            kept_samples -= oldest.samples.size
            oldest.drop_audio()
        return self._tell()

    def delete(self, item: SessionItem) -> list[ServerEvent]:
        """Forget an item; nothing more is told of it. Returns what can be told now of those that waited for it."""
        self.forget_speech()
        item.decoding.release()
        del self._items[item.id]
        if item in self._with_audio:
            self._with_audio.remove(item)
        item.drop_audio()
        item.unsent.clear()
        item.is_finished = True
        return self._tell()

    def forget_speech(self) -> None:
        """What was said so far is not to be heard again with what follows."""
        self.recent.forget()
        for item in self._unfinished:
            item.decoding.forget_context()
        if self.open_item:
            self.open_item.decoding.forget_context()

    def _tell(self) -> list[ServerEvent]:
        """What can be told now of unfinished items: nothing of an item before all of the one before it.

        OpenAI promises no order between items; LiveKit relies on one, since it gathers all deltas in one text.
        """
        events: list[ServerEvent] = []
        while self._unfinished:
            first = self._unfinished[0]
            events += first.unsent
            first.unsent = []
            if not first.is_finished:
                break
            self._unfinished.popleft()
        if not self._unfinished and self.open_item:
            events += self.open_item.unsent
            self.open_item.unsent = []
        return events
