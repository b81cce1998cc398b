"""Ports, pages and the browser."""

from __future__ import annotations

import contextlib
import html
import http
import http.server
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from recon.errors import ReconError, UsageError

# Where viewers listen unless told otherwise; the next free one is taken when it is in use.
PORT = 8080

_TRIES = 200

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ANYWHERE = ("0.0.0.0", "::", "")


def free_port(host: str, port: int) -> int:
    """The first free port from this one on.

    Raises:
        UsageError: the host is none of this machine's, or the port is none.
        ReconError: all ports that were tried are in use.
    """
    if not 1 <= port <= 65535:
        raise UsageError(f"--port {port}: a port is a number from 1 to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f"--host {host}: cannot be listened on ({error.strerror or error})") from error
    for candidate in range(port, min(port + _TRIES, 65536)):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address[0], candidate))
                probe.listen(1)
                return candidate
            except PermissionError:
                continue
            except OSError as error:
                if error.errno in (99, 10049):  # EADDRNOTAVAIL
                    raise UsageError(f"--host {host}: is not an address of this machine") from error
    raise ReconError(f"ports {port} to {port + _TRIES - 1} are all in use; choose another with --port")


def is_own_request(headers: Mapping[str, str], host: str) -> bool:
    """Tell a request of the viewer's own page, or of no page at all, from those of other pages.

    Another page in the same browser could else connect to a viewer of this machine and read the scene: browsers let
    pages open WebSockets to any host, but say in ``Origin`` whose page it is. Under a name that somebody
    let point to this machine the page would look like the viewer's own; hence ``Host`` is one of this machine's names
    where only this machine is served.

    Args:
        host: the address that is listened on.
    """
    asked = headers.get("Host", "")
    if host not in _ANYWHERE and urlsplit(f"//{asked}").hostname not in {*_LOOPBACK, host.lower()}:
        return False
    origin = headers.get("Origin")
    return origin is None or urlsplit(origin).netloc.lower() == asked.lower()


@contextlib.contextmanager
def only_own_requests(host: str) -> Iterator[None]:
    """Let a viser server that is made meanwhile refuse what ``is_own_request`` does not take for its own.

    viser has no setting for this, but all its requests go through the ``process_request`` of ``websockets.serve``.
    """
    from websockets.asyncio import server

    serve = server.serve

    def guarded(*args: Any, process_request: Any = None, **options: Any) -> Any:
        def process(connection: Any, request: Any) -> Any:
            if not is_own_request(request.headers, host):
                return connection.respond(http.HTTPStatus.FORBIDDEN, "This page is not of the viewer.\n")
            return None if process_request is None else process_request(connection, request)

        return serve(*args, process_request=process, **options)

    server.serve = guarded  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        server.serve = serve  # type: ignore[misc]


def open_browser(url: str) -> bool:
    """Open a page in a graphical browser; False where there is none."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return False  # a browser of the terminal would take it over
    try:
        return webbrowser.open(url)
    except webbrowser.Error:
        return False


class PairPage:
    """A page with two viewers side by side, at its own port; other paths are not found, other pages are refused.

    Args:
        names: of the two. ports: of the two.
    """

    def __init__(self, host: str, port: int, names: tuple[str, str], ports: tuple[int, int]) -> None:
        page = _page(names, ports).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                own = is_own_request(dict(self.headers.items()), host)
                found = own and self.path.partition("?")[0] == "/"
                self.send_response(200 if found else 404 if own else 403)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                body = page if found else b""
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="recon-view-page", daemon=True).start()

    def stop(self) -> None:
        """Let go of the port."""
        self._server.shutdown()
        self._server.server_close()


def _page(names: tuple[str, str], ports: tuple[int, int]) -> str:
    a, b = (html.escape(name) for name in names)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{a} | {b}</title>
<link rel="icon" href="data:,">
<style>
html, body {{ height: 100%; margin: 0; background: #141517; color: #c9ccd1; font: 14px system-ui, sans-serif; }}
main {{ display: grid; grid-template-columns: 1fr 1fr; grid-template-rows: auto 1fr; height: 100%; gap: 0 2px; }}
h1 {{ font: inherit; font-weight: 600; margin: 0; padding: 6px 12px; overflow: hidden; text-overflow: ellipsis; }}
iframe {{ border: 0; width: 100%; height: 100%; display: block; }}
</style></head><body><main><h1>{a}</h1><h1>{b}</h1>
<iframe title="{a}" data-port="{ports[0]}"></iframe><iframe title="{b}" data-port="{ports[1]}"></iframe>
</main><script>
for (const frame of document.querySelectorAll("iframe"))
  frame.src = `http://${{location.hostname}}:${{frame.dataset.port}}/`;
</script></body></html>
"""
