"""Files from a Hugging Face dataset and by plain HTTPS: resumed where they broke off, accepted by size and sha256.

Client, token, rate limits and offline mode are huggingface_hub's. The bytes are written here: its `hf_hub_download`
(2.4) starts anew after a kill, does not hash what came, and gives up at a reset connection. Files in Xet storage come
through the hub's HTTPS bridge, whose answers can be continued; the library's Xet client cannot.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import constants, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (  # type: ignore[attr-defined] # public, but exported in a way mypy does not see
    build_hf_headers,
    hf_raise_for_status,
    http_backoff,
    http_stream_backoff,
)

from kidney_ssl.data.registry import Known
from kidney_ssl.errors import InputError, one_line
from kidney_ssl.files import sha256

# The library would name the installed packages in each request, and ask the hub for one list more to do so.
constants.HF_HUB_DISABLE_TELEMETRY = True

RETRIES = 4  # after an attempt that brought no byte
FIRST_WAIT_S = 1.0  # before the first of them; each wait is twice the last
LONGEST_WAIT_S = 8.0
REFUSALS = (401, 403)  # HTTP status
PATHS = 100  # named in one request to the hub


class OutageError(InputError):
    """A fault that the next file would meet too: no network, a server that fails, a full disk."""


@dataclass(frozen=True)
class Dataset:
    """A dataset on a Hugging Face hub at one commit; `endpoint` is None for HF_ENDPOINT or the hub's own."""

    endpoint: str | None
    repository: str
    revision: str

    def url(self, file: str) -> str:
        """Address of one of its files.

        Raises:
            InputError: `repository` is no name of a dataset.
        """
        try:
            return hf_hub_url(
                self.repository, file, repo_type="dataset", revision=self.revision, endpoint=self.endpoint
            )
        except HFValidationError as error:
            raise InputError(f"kits23.imaging_repository: {self.repository!r} is no name of a dataset") from error


def hub_headers() -> dict[str, str]:
    """Headers of a request to the hub: the token, when HF_TOKEN or a login gives one."""
    return build_hf_headers(library_name="kidney-ssl")


def _patience() -> dict[str, Any]:
    """The library's arguments for trying again."""
    return {"max_retries": RETRIES, "base_wait_time": FIRST_WAIT_S, "max_wait_time": LONGEST_WAIT_S}


def ask_hub(dataset: Dataset, files: Sequence[str], *, timeout: float) -> dict[str, Known]:
    """Ask for size and sha256 of a dataset's large files, many in one request.

    Args:
        dataset: where they are.
        files: their paths in it.
        timeout: seconds without a byte.

    Returns:
        path -> what it must be; files that the dataset does not have are left out.

    Raises:
        InputError: no network, offline mode, or the hub refuses.
    """
    endpoint = dataset.endpoint or constants.ENDPOINT
    url = f"{endpoint}/api/datasets/{dataset.repository}/paths-info/{dataset.revision}"
    found: list[RepoFile] = []
    for start in range(0, len(files), PATHS):
        wanted = {"paths": list(files[start : start + PATHS]), "expand": False}
        try:
            response = http_backoff("POST", url, data=wanted, headers=hub_headers(), timeout=timeout, **_patience())
            hf_raise_for_status(response)
            entries = [entry for entry in response.json() if entry["type"] == "file"]
            found += [RepoFile(**entry) for entry in entries]  # type: ignore[no-untyped-call] # it has no types
        except (httpx2.HTTPError, httpx2.InvalidURL, OfflineModeIsEnabled) as error:
            raise _explained(url, error) from error
        except (ValueError, TypeError, LookupError) as error:
            raise InputError(
                f"{url}: the answer is not a Hugging Face hub's; look at kits23.imaging_endpoint"
            ) from error
    return {file.path: Known(file.lfs.size, file.lfs.sha256) for file in found if file.lfs}


def size_of(path: Path) -> int:
    """Bytes of a file; 0 when there is none, or none any more."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@dataclass(frozen=True)
class Transfer:
    """One file on its way; nobody else may write to `target`.

    Attributes:
        url: its address.
        target: where it is written; bytes that an earlier run left there are continued.
        known: its size and sha256.
        headers: of the request.
        timeout: seconds without a byte.
        advance: told how many bytes there are more, or fewer.
        stop: when set, the transfer breaks off.
    """

    url: str
    target: Path
    known: Known
    headers: dict[str, str]
    timeout: float
    advance: Callable[[int], object]
    stop: threading.Event

    def run(self) -> None:
        """Bring the file to its expected bytes.

        A broken or stalled connection, a server's fault and a rate limit are waited out, as long as bytes still come.

        Raises:
            OutageError: the server cannot be reached, or fails, or stalls.
            InputError: the file is not there, or the server gives another one.
            OSError: it cannot be written.
        """
        # Twice, since it may be the earlier run's bytes that were damaged, or too many.
        for _ in range(2):
            try:
                self._fill()
            except (httpx2.HTTPError, httpx2.InvalidURL, OfflineModeIsEnabled) as error:
                raise _explained(self.url, error) from error
            if sha256(self.target) == self.known.sha256:
                return
            self.advance(-size_of(self.target))
            self.target.unlink()
        raise InputError(f"wrong bytes (sha256) from {self.url}")

    def _fill(self) -> None:
        """Go on until the file has its size, or nothing comes any more."""
        self.advance(size_of(self.target))
        vain = 0
        while (have := size_of(self.target)) < self.known.bytes:
            try:
                self._receive(have)
                error: httpx2.TransportError = httpx2.RemoteProtocolError("the answer ends early")
            except httpx2.TransportError as broken:
                error = broken
            if size_of(self.target) < self.known.bytes:
                vain = 0 if size_of(self.target) > have else vain + 1
                if vain > RETRIES:
                    raise error
                self.stop.wait(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**vain))

    def _receive(self, have: int) -> None:
        """Make one request and append what comes to the bytes that are there."""
        asked = self.headers | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        # The client is shared by all threads, and the library would close it before it tries again.
        patience = _patience() | {"retry_on_exceptions": ()}
        with http_stream_backoff("GET", self.url, headers=asked, timeout=self.timeout, **patience) as response:
            start = self._first_byte(response, have)
            self.advance(start - have)
            with self.target.open("ab" if start else "wb") as stream:
                for chunk in response.iter_raw():
                    if self.stop.is_set():
                        raise OutageError("broken off")
                    if stream.tell() + len(chunk) > self.known.bytes:
                        raise InputError(f"more than {self.known.bytes} bytes from {self.url}")
                    stream.write(chunk)
                    self.advance(len(chunk))

    def _first_byte(self, response: httpx2.Response, have: int) -> int:
        """Tell where an answer begins in the file; refuse one that is not the file's, before it replaces a byte."""
        size, status = self.known.bytes, response.status_code
        kind, length = response.headers.get("Content-Type", ""), response.headers.get("Content-Length")
        if status == httpx2.codes.PARTIAL_CONTENT:
            if response.headers.get("Content-Range", "").replace(" ", "") == f"bytes{have}-{size - 1}/{size}":
                return have
        elif status == httpx2.codes.OK:
            if length in (None, str(size)) and "html" not in kind:
                return 0
        else:
            raise _bad_status(self.url, response)
        raise InputError(
            f"{length or 'some'} bytes of {kind or 'no type'} instead of the file's {size} from {self.url}"
        )


def _explained(url: str, error: Exception) -> InputError:
    """One line for what the client raised."""
    if isinstance(error, OfflineModeIsEnabled):
        return OutageError(f"offline mode: unset HF_HUB_OFFLINE to reach {url}")
    if isinstance(error, HfHubHTTPError):
        return _bad_status(url, error.response)
    if isinstance(error, httpx2.TimeoutException):
        return OutageError(f"no byte within the timeout from {url}")
    return OutageError(f"no connection to {url} ({one_line(str(error)) or type(error).__name__})")


def _bad_status(url: str, response: httpx2.Response) -> InputError:
    """One line for an answer that is an error."""
    status = response.status_code
    # The request's header is looked at: a redirect to another server leaves the token behind.
    if status in REFUSALS and "authorization" in response.request.headers:
        return OutageError(
            f"HTTP {status} from {url}: the token of HF_TOKEN or `hf auth login` is refused: it has expired, was "
            "withdrawn or lacks the right; log in again, or remove it (KiTS23 needs none)"
        )
    outage = status in {408, 429} or status >= httpx2.codes.INTERNAL_SERVER_ERROR
    return (OutageError if outage else InputError)(f"HTTP {status} from {url}")
