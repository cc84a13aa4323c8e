"""A proxy that passes HTTP requests on to an S3 server after a delay, and counts them. It can stand for a
line of limited bandwidth as well.

It understands just enough of HTTP/1.1 to see where a request begins: heads end with an empty line,
and bodies have a length or are chunked. Whatever the server answers is passed back as it comes.
"""

import asyncio
import re
import threading


class DelayingProxy:
    """Listens on a port of this machine while the block lasts."""

    def __init__(self, target_port: int, delay_seconds: float, bytes_per_second: float | None = None):
        self.target_port = target_port
        self.delay_seconds = delay_seconds
        self.bytes_per_second = bytes_per_second
        self._free_at = 0.0
        self.requests = 0
        self.bytes = 0
        self._ready = threading.Event()

    def __enter__(self) -> "DelayingProxy":
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def reset(self) -> None:
        self.requests = self.bytes = 0

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", self.target_port, limit=1 << 20)
        back = asyncio.ensure_future(self._pass_back(server, answer))
        try:
            while True:
                head = await client.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length:\s*(\d+)", head, re.IGNORECASE)
                body = await client.readexactly(int(length.group(1))) if length else b""
                self.requests += 1
                await asyncio.sleep(self.delay_seconds)
                to_server.write(head + body)
                await to_server.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            back.cancel()
            to_server.close()
            answer.close()

    async def _take_turn(self, size: int) -> None:
        """Waits until the line that all connections share has carried what came before."""
        if self.bytes_per_second is None:
            return
        now = self._loop.time()
        self._free_at = max(self._free_at, now) + size / self.bytes_per_second
        await asyncio.sleep(self._free_at - now)

    async def _pass_back(self, server: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        try:
            while data := await server.read(1 << 18):
                self.bytes += len(data)
                await self._take_turn(len(data))
                answer.write(data)
                await answer.drain()
        except ConnectionError:
            pass
        finally:
            answer.close()
