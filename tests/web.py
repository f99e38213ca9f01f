"""A web on loopback: Google Drive, Hugging Face, Kaggle and a plain server.

`redirect` leads requests to other machines here. Addresses, headers, forms, redirects
and cookies are those of the real services.
"""

import contextlib
import hashlib
import html
import http.server
import json
import threading
import time
import urllib.parse

MODIFIED = "Tue, 28 Feb 2023 08:00:00 GMT"
COMMIT = "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"
QUOTA = (
    "Too many users have viewed or downloaded this file recently. Please try "
    "accessing the file again later."
)


class Web(http.server.ThreadingHTTPServer):
    """The services, and what they hold.

    Attributes:
        files: dict of bytes. By id for Drive, by `USER/REPO/FILE` for Hugging Face, by
            name for Kaggle's CLIP, by path for plain servers.
        small: set of ids that Drive gives without a page before.
        pages: dict of ids to pages that Drive shows in place of a file.
        cuts: list of ints. After so many bytes the next transfers of files break.
        chunk, pause: bytes that are sent at once, and seconds between.
        has_ranges: bool. Whether parts of files can be had.
        asked: list of `(method, path, headers)`.
        sent: int. Bytes of files that were sent.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.small, self.pages = {}, set(), {}
        self.cuts, self.chunk, self.pause = [], 1 << 16, 0.0
        self.has_ranges, self.asked, self.sent = True, [], 0
        self.tokens = {}

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        # Clients that are killed are part of the tests.
        pass


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.server.asked.append((self.command, path, dict(self.headers)))
        query = dict(urllib.parse.parse_qsl(query))
        host, _, rest = path[1:].partition("/")
        services = {
            "drive.google.com": self.drive,
            "drive.usercontent.google.com": self.drive_contents,
            "huggingface.co": self.hub,
            "api.kaggle.com": self.kaggle,
        }
        services.get(host, self.plain)(urllib.parse.unquote(rest), query)

    do_HEAD = do_POST = do_GET

    # === Google Drive ===
    def drive(self, path, query):
        if path != "uc":
            return self.page("<html><body>Sign in</body></html>")
        target = f"https://drive.usercontent.google.com/download?id={query['id']}"
        self.answer(303, headers={"Location": f"{target}&export=download"})

    def drive_contents(self, path, query):
        id_ = query["id"]
        if id_ in self.server.pages:
            return self.page(self.server.pages[id_])
        if id_ not in self.server.files:
            return self.page(
                "<html><title>Error 404 (Not Found)!!1</title></html>", 404
            )
        token = self.server.tokens.get(id_)
        is_confirmed = query.get("confirm") == "t" and query.get("uuid") == token
        has_cookie = f"NID={token}" in self.headers.get("Cookie", "")
        if id_ in self.server.small or (token and is_confirmed and has_cookie):
            name = {"Content-Disposition": 'attachment; filename="a file.pth"'}
            return self.file(
                self.server.files[id_], {**name, "Last-Modified": MODIFIED}
            )
        token = token or f"8e2bd9b9-{len(self.server.tokens):04}"
        self.server.tokens[id_] = token
        fields = {"id": id_, "export": "download", "confirm": "t", "uuid": token}
        inputs = "".join(
            f'<input type="hidden" name="{html.escape(name)}" value="{value}">'
            for name, value in fields.items()
        )
        self.page(
            "<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning"
            '</title></head><body><p class="uc-warning-caption">Google Drive can\'t '
            'scan this file for viruses.</p><form id="download-form" '
            'action="https://drive.usercontent.google.com/download" method="get">'
            f'<input type="submit" value="Download anyway"/>{inputs}</form></body>',
            cookie=f"NID={token}; Domain=.google.com; Path=/; Secure",
        )

    # === Hugging Face ===
    def hub(self, path, query):
        name = path.replace("/resolve/main/", "/")
        content = self.server.files.get(name)
        if content is None:
            code = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
            return self.answer(404, b"Entry not found", code)
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        # The files are on another machine.
        self.answer(
            302,
            headers={
                "X-Repo-Commit": COMMIT,
                "X-Linked-Size": len(content),
                "X-Linked-ETag": tag,
                "Location": f"http://localhost:{self.server.server_port}/cdn/{name}",
            },
        )

    # === Kaggle ===
    def kaggle(self, path, query):
        size = int(self.headers.get("Content-Length") or 0)
        asked = json.loads(self.rfile.read(size) or b"{}")
        prefix = "kaggle/"
        names = [x for x in self.server.files if x.startswith(prefix)]
        if path.endswith("ListModelInstanceVersionFiles") and names:
            files = [{"name": x.removeprefix(prefix)} for x in names]
            kind = {"Content-Type": "application/json"}
            return self.answer(200, json.dumps({"files": files}).encode(), kind)
        content = self.server.files.get(prefix + asked.get("path", ""))
        if content is None:
            return self.answer(404, b'{"code": 404, "message": "Not found"}')
        self.file(content, {})

    # === Any other server ===
    def plain(self, path, query):
        content = self.server.files.get(self.path[1:].removeprefix("cdn/"))
        if content is None:
            return self.answer(404, b"not found")
        self.file(content, {"Last-Modified": MODIFIED})

    # === Answers ===
    def page(self, text, status=200, cookie=None):
        headers = {"Content-Type": "text/html; charset=utf-8"}
        if cookie:
            headers["Set-Cookie"] = cookie
        self.answer(status, text.encode(), headers)

    def answer(self, status, content=b"", headers=()):
        self.send_response(status)
        for name, value in {**dict(headers), "Content-Length": len(content)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def file(self, content, headers):
        start, whole = 0, len(content)
        status = 200
        wanted = self.headers.get("Range", "")
        unchanged = self.headers.get("If-Range") in (None, MODIFIED)
        if self.server.has_ranges:
            headers = {**headers, "Accept-Ranges": "bytes"}
            if wanted and unchanged:
                start, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
                if start >= whole:
                    return self.answer(
                        416, headers={"Content-Range": f"bytes */{whole}"}
                    )
                headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
        self.send_response(status)
        headers = {"Content-Type": "application/octet-stream", **headers}
        for name, value in {**headers, "Content-Length": whole - start}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        is_for_us = not wanted or status == 206
        cut = self.server.cuts.pop(0) if self.server.cuts and is_for_us else None
        end = whole if cut is None else min(start + cut, whole)
        for at in range(start, end, self.server.chunk):
            piece = content[at : min(at + self.server.chunk, end)]
            self.wfile.write(piece)
            self.server.sent += len(piece)
            time.sleep(self.server.pause)
        if end < whole:
            self.close_connection = True
            self.connection.close()


@contextlib.contextmanager
def serving():
    """Run a `Web` in a thread."""
    with Web() as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.05,))
        thread.start()
        yield web
        web.shutdown()


def redirect(web, patch=setattr):
    """Lead what `requests` asks of other machines to a `Web`.

    Args:
        web: a `Web`, or whatever else has its `address`.
        patch: callable. As `setattr`, such as that of a `pytest.MonkeyPatch`.
    """
    import requests
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def rewritten(self, request, **options):
        parts = urllib.parse.urlsplit(request.url)
        if parts.hostname in ("127.0.0.1", "localhost"):
            return send(self, request, **options)
        moved = request.copy()
        moved.url = f"{web.address}/{parts.hostname}{parts.path}"
        moved.url += f"?{parts.query}" if parts.query else ""
        try:
            response = send(self, moved, **options)
        except requests.RequestException as error:
            error.request = request
            raise
        response.url, response.request = request.url, request
        return response

    patch(HTTPAdapter, "send", rewritten)
