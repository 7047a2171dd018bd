"""HTTP: connections that stay open, and ones that end without an answer where a test wants that."""

import http.server
import io
import json
import socket
import sys
import threading
import time
import traceback
from email.utils import formatdate
from typing import Any

from . import control, metadata
from .wire import Answer


class Dropped(Exception):
    """The connection is to end without an answer."""


class Handler(http.server.BaseHTTPRequestHandler):
    # The SDKs keep connections open, and moto's own server closes each.
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Any

    def handle_any(self) -> None:
        began = time.perf_counter()
        body = self.body()
        peer = self.server.peer
        try:
            if self.server.machine is not None:
                with peer.lock:
                    peer.clock.settle()
                    answer = metadata.answer(self.server.machine, self.command, self.path.partition("?")[0], self.headers)
            elif self.path.startswith("/_peer/"):
                answer = self.controlled(peer, body)
            else:
                answer = peer.serve(self.environment(body), body, began)
        except Dropped:
            self.close_connection = True
            # A reset and not an end: what a client sees when a network breaks.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            self.connection.close()
            self.wfile = io.BytesIO()  # type: ignore[assignment]
            self.rfile = io.BytesIO()  # type: ignore[assignment]
            return
        except Exception:
            traceback.print_exc()
            answer = Answer(500, {"Content-Type": "text/plain"}, traceback.format_exc().encode())
        self.say(answer)

    def controlled(self, peer: Any, body: bytes) -> Answer:
        try:
            asked = json.loads(body or b"{}")
            said = control.control(peer, self.command, self.path, asked)
        except control.NoSuch as error:
            return Answer(404, {"Content-Type": "application/json"}, json.dumps({"error": str(error)}).encode())
        except (ValueError, KeyError, TypeError) as error:
            problem = f"{type(error).__name__}: {error}"
            return Answer(400, {"Content-Type": "application/json"}, json.dumps({"error": problem}).encode())
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(said, default=str).encode())

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def say(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("content-length", "connection", "date", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Date", formatdate(time.time() + self.server.peer.skew_seconds, usegmt=True))
        if self.command == "HEAD":
            length = {name.lower(): value for name, value in answer.headers.items()}.get("content-length", "0")
        else:
            length = str(len(answer.body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
        self.wfile.flush()

    def environment(self, body: bytes) -> dict[str, Any]:
        """As WSGI has it, which is what moto reads."""
        path, _, query = self.path.partition("?")
        from urllib.parse import unquote_to_bytes

        host, port = self.server.server_address[:2]
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "RAW_URI": self.path,
            "REQUEST_URI": self.path,
            "QUERY_STRING": query,
            "SCRIPT_NAME": "",
            "SERVER_NAME": host,
            "SERVER_PORT": str(port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": self.client_address[0],
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.url_scheme": "http",
            "wsgi.version": (1, 0),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in self.headers.items():
            key = "HTTP_" + name.upper().replace("-", "_")
            # The region is that of the signature, and moto would believe the name of the program first.
            if key not in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_USER_AGENT"):
                environ[key] = f"{environ[key]},{value}" if key in environ else value
        return environ

    def log_message(self, *_: Any) -> None:
        pass

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = handle_any


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # Many regions are asked at once.
    request_queue_size = 1024

    def __init__(self, peer: Any, port: int, machine: Any = None):
        super().__init__(("127.0.0.1", port), Handler)
        self.peer = peer
        # Where it is the metadata service of one instance.
        self.machine = machine

    def handle_error(self, *_: Any) -> None:
        """Clients that go away are what tests are about."""
        if not isinstance(sys.exc_info()[1], OSError | ValueError):
            traceback.print_exc()


def serve_metadata(peer: Any, machine: Any) -> int:
    """Starts the metadata service of an instance; says at which port."""
    server = Server(peer, 0, machine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def serve(peer: Any, port: int) -> None:
    server = Server(peer, port)
    peer.port = server.server_address[1]
    # Switching between threads sooner keeps short calls short while a long one runs.
    sys.setswitchinterval(0.001)
    print(peer.port, flush=True)
    threading.Thread(target=peer.warm, daemon=True).start()
    server.serve_forever()
