"""A TCP proxy that can cut, refuse and freeze: the network between a client and its server."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER 0: close with RST, as a firewall does


class Proxy(threading.Thread):
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target`, until told otherwise."""

    def __init__(self, target: int) -> None:
        super().__init__(name="proxy", daemon=True)
        self.target = target
        self.port = 0
        self.connections = 0
        """How many were ever accepted."""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._flows: set[asyncio.Transport] = set()
        self._refusing = False
        self._thawed: asyncio.Event

    def __enter__(self) -> Proxy:
        self.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.join(10)
        self._loop.close()

    def run(self) -> None:
        """The event loop."""
        asyncio.set_event_loop(self._loop)
        self._thawed = asyncio.Event()
        self._thawed.set()
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", self.port)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    def cut(self) -> None:
        """Reset every connection there is."""
        self._call(self._reset)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Cut all connections and let no new one through."""
        self._refusing = True
        self.cut()
        try:
            yield
        finally:
            self._refusing = False

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Nothing is forwarded, nothing is closed; afterwards every connection is reset."""
        self._call(self._thawed.clear)
        try:
            yield
        finally:
            self._call(self._reset)
            self._call(self._thawed.set)

    def _call(self, function: Callable[[], object]) -> None:
        done = threading.Event()

        def act() -> None:
            function()
            done.set()

        self._loop.call_soon_threadsafe(act)
        done.wait(10)

    def _reset(self) -> None:
        for transport in tuple(self._flows):
            sock = transport.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._flows.add(writer.transport)  # type: ignore[arg-type]
        try:
            await self._thawed.wait()
            if self._refusing:
                return
            try:
                there = await asyncio.open_connection("127.0.0.1", self.target)
            except OSError:
                return  # the server is down
            self._flows.add(there[1].transport)  # type: ignore[arg-type]
            try:
                both = (self._pump(reader, there[1]), self._pump(there[0], writer))
                await asyncio.gather(*both)
            finally:
                self._flows.discard(there[1].transport)
                there[1].close()
        finally:
            self._flows.discard(writer.transport)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._thawed.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
