"""A web server on the loopback interface that sends parts of files, and counts what it is asked for."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class WebServer(ThreadingHTTPServer):
    """The server: `address`, the `asked` paths with the bytes that were sent of each, and whether it `sends_parts`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked: list[tuple[str, int]] = []
        self.sends_parts = True

    def num_bytes(self, name: str = "") -> int:
        """Bytes of content that were sent of paths that end so."""
        return sum(count for path, count in self.asked if path.endswith(name))

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(SimpleHTTPRequestHandler):
    server: WebServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if file := self._part() or self.send_head():
            content = file.read()
            self.server.asked.append((self.path, len(content)))
            self.wfile.write(content)
            file.close()

    def _part(self) -> io.BytesIO | None:
        path, part = (
            Path(self.translate_path(self.path)),
            re.match(r"bytes=(\d+)-(\d+)$", self.headers.get("Range", "")),
        )
        if not (self.server.sends_parts and part and path.is_file()):
            return None
        content, first, last = path.read_bytes(), int(part[1]), int(part[2])
        sent = content[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(sent)))
        self.send_header("Content-Range", f"bytes {first}-{first + len(sent) - 1}/{len(content)}")
        self.end_headers()
        return io.BytesIO(sent)


@contextmanager
def serve(folder: Path) -> Iterator[WebServer]:
    """Serve a folder for as long as the block lasts."""
    server = WebServer(folder)
    often = 0.02  # seconds between two looks at whether it is to stop
    threading.Thread(target=server.serve_forever, args=(often,), daemon=True).start()
    try:
        yield server
    finally:
        server.stop()
