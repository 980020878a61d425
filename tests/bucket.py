"""A bucket on this machine: as much of the JSON API of Google Cloud Storage as TensorStore asks for, and its faults.

As there, an object is written or removed whole, under a generation that no other one has had.
"""

import contextlib
import http.server
import itertools
import json
import threading
import time
import urllib.parse

import pytest

FORBIDDEN = "forbidden"  # a bucket that one may not write to


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def _answer(self, status: int, body: bytes = b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _asked(self):
        url = urllib.parse.urlsplit(self.path)
        bucket, _, name = url.path.partition("/b/")[2].partition("/o")
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        return bucket, urllib.parse.unquote(name.removeprefix("/")), query

    def _fails(self, name: str) -> bool:
        """Answer as the test wants a request to be answered that is not served."""
        fault = self.server.fault(self.command, name)
        if fault == "cut":  # in the middle of an answer
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome")
            self.close_connection = True
        elif isinstance(fault, float):
            time.sleep(fault)
            return False
        elif fault:
            self._answer(fault, b'{"error": {"message": "as the test wants it"}}')
        return bool(fault)

    def _as_wanted(self, name: str, query: dict) -> bool:
        wanted = query.get("ifGenerationMatch")
        return wanted is None or int(wanted) == self.server.generations.get(name, 0)

    def do_GET(self):
        _, name, query = self._asked()
        if self._fails(name):
            return
        objects = self.server.objects
        if not name:
            with self.server.lock:
                objects = dict(self.server.objects)
            items = [{"name": n, "size": str(len(v)), "generation": str(self.server.generations.get(n, 1))}
                     for n, v in sorted(objects.items()) if n.startswith(query.get("prefix", ""))
                     and query.get("startOffset", "") <= n < query.get("endOffset", "\U0010ffff")]  # fmt: skip
            self._answer(200, json.dumps({"items": items}).encode(), Content_Type="application/json")
            return
        with self.server.lock:
            data, generation = objects.get(name), self.server.generations.get(name)
        if data is None:
            self._answer(404)
        else:
            headers = {"x_goog_generation": str(generation)}
            if wanted := self.headers.get("Range"):
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                size = len(data)
                first = int(first) if first else max(0, size - int(last))
                last = int(last) if last and self.headers["Range"].count("=-") == 0 else size - 1
                headers["Content_Range"] = f"bytes {first}-{min(last, size - 1)}/{size}"
                self._answer(206, data[first : last + 1], **headers)
            else:
                self._answer(200, data, **headers)

    def do_POST(self):
        bucket, _, query = self._asked()
        data, name = self.rfile.read(int(self.headers["Content-Length"])), query["name"]
        if self._fails(name):
            return
        with self.server.lock:
            if bucket == FORBIDDEN:
                self._answer(403, b'{"error": {"message": "you may not write to this bucket"}}')
            elif not self._as_wanted(name, query):
                self._answer(412)
            else:
                self.server.objects[name] = data
                self.server.generations[name] = next(self.server.next)
                about = {"name": name, "generation": str(self.server.generations[name]), "size": str(len(data))}
                self._answer(200, json.dumps(about).encode(), Content_Type="application/json")

    def do_DELETE(self):
        _, name, query = self._asked()
        if self._fails(name):
            return
        with self.server.lock:
            if not self._as_wanted(name, query):
                self._answer(412)
            elif self.server.objects.pop(name, None) is None:
                self._answer(404)
            else:
                del self.server.generations[name]
                self._answer(204)


@contextlib.contextmanager
def serving(fault=lambda method, name: None, holding=()):
    """Gives the objects, name -> bytes, of all that this process and those that it starts ask of gs:// meanwhile.

    `fault(method, name)` says how a request fails: by a status, "cut" or, in seconds, late; None serves it. `holding`
    is what is there to begin with.
    """
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.next, server.fault = itertools.count(1), fault
    server.objects, server.lock = dict(holding), threading.Lock()
    server.generations = {name: next(server.next) for name in server.objects}
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{server.server_port}")
            yield server.objects
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
