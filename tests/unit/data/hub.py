"""A Hugging Face hub, its content server and GitHub's raw files, on 127.0.0.1, with faults to switch on.

Three servers, since each is an origin of its own and the token may reach only the first. The hub speaks as
huggingface_hub 2.4 expects of a dataset in Xet storage: `paths-info` by POST, `resolve` with X-Repo-Commit,
X-Linked-Etag, X-Linked-Size and X-Xet-Hash, redirecting to a signed address that serves ranges and, like the real
one, names no ETag.
"""

import hashlib
import json
import re
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from huggingface_hub import close_session, constants

from kidney_ssl.data import fetch

DATASET = "owner/imaging"
MODEL = "owner/model"
LABELS = "owner/labels"
IMAGING_COMMIT = "a" * 40
LABELS_COMMIT = "b" * 40
MODEL_COMMIT = "d" * 40
PIECE = 1 << 14


@dataclass
class Fault:
    """What goes wrong at an address.

    Attributes:
        kind: cut, reset, stall or slow after `after` bytes; wrong, html, junk, whole (ranges are ignored), or status.
        after: bytes sent before it happens.
        status: for `status`.
        headers: more headers for `status`.
        times: how often; None for always.
        seconds: between two pieces for `slow`.
    """

    kind: str
    after: int = 0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    times: int | None = 1
    seconds: float = 0.0


@dataclass
class Request:
    """A request as it came, and the bytes of content that went out."""

    server: str
    method: str
    path: str
    headers: Message
    sent: int = 0


@dataclass
class Hub:
    """What the servers hold, what goes wrong, and what was asked of them."""

    images: dict[str, bytes]
    labels: dict[str, bytes]
    faults: dict[str, Fault] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    forgotten: list[Request] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)
    models: dict[str, bytes] = field(default_factory=dict)
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, path: str) -> Fault | None:
        """Find the fault of an address, by any part of it, and use it up."""
        with self.lock:
            for part, fault in self.faults.items():
                if part in path and fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None

    def of(self, *parts: str, server: str | None = None) -> list[Request]:
        """Requests whose path holds all of `parts`."""
        with self.lock:
            return [
                request
                for request in self.requests
                if all(part in request.path for part in parts) and server in (None, request.server)
            ]

    def sent(self, *parts: str) -> int:
        return sum(request.sent for request in self.of(*parts))

    def forget(self) -> None:
        """Count from here."""
        with self.lock:
            self.forgotten += self.requests
            self.requests.clear()
            self.faults.clear()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub = self.server.hub
        self.request_ = Request(self.server.name, self.command, self.path, self.headers)
        with hub.lock:
            hub.requests.append(self.request_)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = hub.fault(self.path)
        if fault and fault.kind == "status":
            return self.plain(fault.status, b"fault", headers=fault.headers)
        if fault and fault.kind == "html":
            return self.page()
        if fault and fault.kind == "junk":
            return self.plain(200, b"not what was asked for")
        return getattr(self, f"answer_{self.server.name}")(body, fault)

    def answer_hub(self, body: bytes, fault: Fault | None) -> None:
        hub = self.server.hub
        if self.path == f"/api/datasets/{DATASET}/paths-info/{IMAGING_COMMIT}" and self.command == "POST":
            asked = urllib.parse.parse_qs(body.decode())["paths"]
            infos = [self.info(path, hub.images[path]) for path in asked if path in hub.images]
            return self.content(json.dumps(infos).encode(), fault, kind="application/json")
        found = re.fullmatch(rf"/{MODEL}/resolve/{MODEL_COMMIT}/(.+)", self.path)
        if found and found[1] in hub.models:
            sha256 = hashlib.sha256(hub.models[found[1]]).hexdigest()
            named = {"X-Repo-Commit": MODEL_COMMIT, "ETag": f'"{sha256}"'}
            return self.content(hub.models[found[1]], fault, headers=named)
        found = re.fullmatch(rf"/datasets/{DATASET}/resolve/{IMAGING_COMMIT}/(.+)", self.path)
        if not found or found[1] not in hub.images:
            return self.plain(404, b"not found", headers={"X-Error-Code": "EntryNotFound"})
        content = hub.images[found[1]]
        sha256 = hashlib.sha256(content).hexdigest()
        where = f"{hub.addresses['content']}/{found[1]}?X-Amz-Signature={sha256[:8]}"
        return self.plain(
            302,
            b"Found. Redirecting",
            headers={
                "Location": where,
                "X-Repo-Commit": IMAGING_COMMIT,
                "X-Linked-Etag": f'"{sha256}"',
                "X-Linked-Size": str(len(content)),
                "X-Xet-Hash": sha256[::-1],
            },
        )

    def answer_content(self, body: bytes, fault: Fault | None) -> None:
        path = self.path.partition("?")[0].removeprefix("/")
        self.content(self.server.hub.images[path], fault)

    def answer_github(self, body: bytes, fault: Fault | None) -> None:
        file = r"(case_\d+(?=/segmentation\.nii\.gz$)|kits23\.json$)"
        found = re.match(rf"/{LABELS}/{LABELS_COMMIT}/dataset/{file}", self.path)
        if not found or found[1] not in self.server.hub.labels:
            return self.plain(404, b"404: Not Found")
        return self.content(self.server.hub.labels[found[1]], fault)

    @staticmethod
    def info(path: str, content: bytes) -> dict[str, Any]:
        sha256 = hashlib.sha256(content).hexdigest()
        lfs = {"oid": sha256, "size": len(content), "pointerSize": 134}
        return {"type": "file", "oid": "c" * 40, "size": len(content), "lfs": lfs, "path": path, "xetHash": sha256}

    def page(self) -> None:
        """Some page of some proxy: in chunks, so that its length is not told."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"1f\r\n<html>Something is wrong</html>\r\n0\r\n\r\n")

    def plain(self, status: int, body: bytes, kind: str = "text/plain", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def content(
        self,
        content: bytes,
        fault: Fault | None,
        kind: str = "application/octet-stream",
        headers: dict[str, str] | None = None,
    ) -> None:
        size, start = len(content), 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and not (fault and fault.kind == "whole"):
            start = int(asked[1])
            if start >= size:
                return self.plain(416, b"", headers={"Content-Range": f"bytes */{size}"})
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            self.send_response(200)
        for name, value in {"Content-Type": kind, "Content-Length": str(size - start), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if fault and fault.kind == "wrong":
            content = bytes([content[0] ^ 1]) + content[1:-1] + bytes([content[-1] ^ 1])
        if self.command != "HEAD":
            self.send(content[start:], fault)
        return None

    def send(self, content: bytes, fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        end = min(fault.after, len(content)) if fault and kind in ("cut", "reset", "stall") else len(content)
        for first in range(0, end, PIECE):
            piece = content[first : min(first + PIECE, end)]
            try:
                self.wfile.write(piece)
            except OSError:  # the client has gone
                self.close_connection = True
                return
            self.request_.sent += len(piece)
            if fault and kind == "slow" and first >= fault.after:
                time.sleep(fault.seconds)
        if kind == "stall":
            self.server.hub.closing.wait(20)
        if kind == "reset":
            time.sleep(0.05)  # what was sent shall arrive
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if kind in ("cut", "reset", "stall"):
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, name: str, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.name, self.hub = name, hub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what the tests are about."""


@contextmanager
def running(images: dict[str, bytes], labels: dict[str, bytes]) -> Iterator[Hub]:
    """Serve until the block ends."""
    hub = Hub(images, labels)
    servers = [Server(name, hub) for name in ("hub", "content", "github")]
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for server, thread in zip(servers, threads, strict=True):
        hub.addresses[server.name] = f"http://127.0.0.1:{server.server_port}"
        thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


@contextmanager
def asked(monkeypatch: pytest.MonkeyPatch, images: dict[str, bytes], labels: dict[str, bytes]) -> Iterator[Hub]:
    """`running`, for a client that has a token, and tries again twice and at once."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(fetch, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(fetch, "RETRIES", 2)
    close_session()
    with running(images, labels) as served:
        yield served
        close_session()
