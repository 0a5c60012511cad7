"""Serve bytes by HTTP on this machine, with the faults that servers have."""

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Serve ``server.content`` under every name, with ``server.ranges`` and up to ``server.cut``."""

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        content, partial = self.server.content, self.server.ranges
        first = int(re.match(r"bytes=(\d+)-$", self.headers["Range"])[1]) if partial else 0
        if "absent" in self.path or (first and first >= len(content)):
            self.send_error(404 if "absent" in self.path else 416)
            return
        body = content[first:]
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if self.server.kind:
            self.send_header("Content-Type", self.server.kind)
        if self.server.sized:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut] if self.server.cut else body)

    def log_message(self, *_):
        pass


@contextmanager
def serving(content: bytes):
    """Yield a server of one content; tests change its attributes."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.ranges, server.cut, server.requests = content, True, None, []
    server.kind, server.sized = "application/octet-stream", True
    server.url = f"http://127.0.0.1:{server.server_port}/folder"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
