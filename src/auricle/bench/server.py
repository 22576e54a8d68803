"""What a server's processes cost. Knows nothing of what is asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import psutil

from auricle.errors import AuricleError

_SAMPLE_EVERY_S = 1.0
_MIB = 2**20


@dataclass
class Usage:
    """What a server cost while it was watched."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory_mib: float = 0.0
    """At the end, all processes' resident memory together."""
    peak_memory_mib: float = 0.0

    @property
    def cpu_percent(self) -> float:
        """Of one core, on average."""
        return 100 * self.cpu_s / self.wall_s if self.wall_s else 0.0


class ServerProcesses:
    """A server's process and its children. The load generator asks it for the cost of each run."""

    def __init__(self, pid: int) -> None:
        """Raises AuricleError: there is no such process, or it is another user's."""
        try:
            self._root = psutil.Process(pid)
            self._root.cpu_times()
        except psutil.Error as error:
            raise AuricleError(f"Process {pid} can't be watched: {error}.") from None
        self._cpu_s: dict[tuple[int, float], float] = {}
        """Of each process ever seen; a worker that was killed has still cost what it did."""

    def cpu_s_and_memory_mib(self) -> tuple[float, float]:
        """CPU time since each process began, and resident memory now."""
        memory_bytes = 0
        with suppress(psutil.Error):
            for process in [self._root, *self._root.children(recursive=True)]:
                with suppress(psutil.Error):
                    times = process.cpu_times()
                    self._cpu_s[process.pid, process.create_time()] = times.user + times.system
                    memory_bytes += process.memory_info().rss
        return sum(self._cpu_s.values()), memory_bytes / _MIB

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Usage]:
        """Watch it during a block; the numbers are whole after the block."""
        usage = Usage()
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        # In a thread: it reads a good part of /proc, and nothing may be sent late for that.
        start_cpu_s, usage.memory_mib = await asyncio.to_thread(self.cpu_s_and_memory_mib)

        async def sample() -> None:
            cpu_s, usage.memory_mib = await asyncio.to_thread(self.cpu_s_and_memory_mib)
            usage.cpu_s, usage.wall_s = cpu_s - start_cpu_s, loop.time() - start_s
            usage.peak_memory_mib = max(usage.peak_memory_mib, usage.memory_mib)

        async def sample_often() -> None:
            while True:
                await sample()
                await asyncio.sleep(_SAMPLE_EVERY_S)

        sampling = asyncio.create_task(sample_often())
        try:
            yield usage
        finally:
            sampling.cancel()
            await sample()
