#!/usr/bin/env python3
"""moto's server, with its options, answering one request at a time.

By itself it looks whether a key is there and writes it in two steps, so that two of several racing creates
(`If-None-Match: *`) can win. S3's conditional writes are atomic, and every commit here relies on that.
"""

import io
import threading

from moto import server

ONE_AT_A_TIME = threading.Lock()


class InTurn(server.DomainDispatcherApplication):
    """Takes a request's body at the speed of its sender, and answers it while no other is answered."""

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        with ONE_AT_A_TIME:
            return list(super().__call__(environ, start_response))


if __name__ == "__main__":
    server.DomainDispatcherApplication = InTurn
    server.main()
