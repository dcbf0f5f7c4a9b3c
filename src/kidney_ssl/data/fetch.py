"""Downloads from a Hugging Face dataset or by plain HTTPS, resumed after interruption, checked by size and sha256.

huggingface_hub provides client, token, rate limits and offline mode. The bytes are written here, because its
`hf_hub_download` (2.4) starts again after a kill, does not hash the result, and gives up at a reset connection. Files
in Xet storage are fetched through the hub's HTTPS bridge, which supports resuming; the library's Xet client does not.
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

# Otherwise the library sends a list of installed packages with each request, and needs one more request for it.
constants.HF_HUB_DISABLE_TELEMETRY = True

RETRIES = 4  # retries after an attempt without a new byte
FIRST_WAIT_S = 1.0  # wait before the first retry; doubled for each further one
LONGEST_WAIT_S = 8.0
REFUSALS = (401, 403)  # HTTP status
PATHS = 100  # paths in one request to the hub


class OutageError(InputError):
    """A failure that would also affect the next file: no network, a failing server, a full disk."""


@dataclass(frozen=True)
class Dataset:
    """A dataset on a Hugging Face hub at one commit; `endpoint` is None for HF_ENDPOINT or the hub's own."""

    endpoint: str | None
    repository: str
    revision: str

    def url(self, file: str) -> str:
        """URL of one of its files.

        Raises:
            InputError: `repository` is not a valid name of a dataset.
        """
        try:
            return hf_hub_url(
                self.repository, file, repo_type="dataset", revision=self.revision, endpoint=self.endpoint
            )
        except HFValidationError as error:
            raise InputError(f"kits23.imaging_repository: {self.repository!r} is no name of a dataset") from error


def hub_headers() -> dict[str, str]:
    """Headers of a request to the hub: the token, if HF_TOKEN or a login provides one."""
    return build_hf_headers(library_name="kidney-ssl")


def _patience() -> dict[str, Any]:
    """The library's arguments for retries."""
    return {"max_retries": RETRIES, "base_wait_time": FIRST_WAIT_S, "max_wait_time": LONGEST_WAIT_S}


def ask_hub(dataset: Dataset, files: Sequence[str], *, timeout: float) -> dict[str, Known]:
    """Query size and sha256 of a dataset's large files, many in one request.

    Args:
        dataset: the dataset.
        files: paths in the dataset.
        timeout: maximum seconds without a byte.

    Returns:
        path -> size and sha256; files that the dataset does not have are left out.

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
            found += [RepoFile(**entry) for entry in entries]  # type: ignore[no-untyped-call] # the library has no types here
        except (httpx2.HTTPError, httpx2.InvalidURL, OfflineModeIsEnabled) as error:
            raise _explained(url, error) from error
        except (ValueError, TypeError, LookupError) as error:
            raise InputError(
                f"{url}: the answer is not a Hugging Face hub's; look at kits23.imaging_endpoint"
            ) from error
    return {file.path: Known(file.lfs.size, file.lfs.sha256) for file in found if file.lfs}


def size_of(path: Path) -> int:
    """Size of a file in bytes; 0 if it does not exist, or was just removed."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@dataclass(frozen=True)
class Transfer:
    """Download of one file; no other process may write to `target`.

    Attributes:
        url: URL of the file.
        target: path to write; bytes from an earlier run are kept and the download resumes after them.
        known: expected size and sha256.
        headers: headers of the request.
        timeout: maximum seconds without a byte.
        advance: called with the change in the number of bytes, which may be negative.
        stop: if set, the transfer stops.
    """

    url: str
    target: Path
    known: Known
    headers: dict[str, str]
    timeout: float
    advance: Callable[[int], object]
    stop: threading.Event

    def run(self) -> None:
        """Download the file until it has its expected bytes.

        Broken or stalled connections, server errors and rate limits are retried as long as attempts bring new bytes.

        Raises:
            OutageError: the server cannot be reached, fails or stalls.
            InputError: the server does not have the file, or has another one.
            OSError: the file cannot be written.
        """
        # Twice, since bytes of an earlier run may be damaged or too many.
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
        """Request data until the file has its size or no more bytes arrive."""
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
        """Make one request and append the received bytes to the file."""
        asked = self.headers | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        # No retries on exceptions: the library would close the client, which all threads share.
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
        """Offset in the file at which a response begins; a response for another file is refused before any writing."""
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
    """An error line for an exception of the client."""
    if isinstance(error, OfflineModeIsEnabled):
        return OutageError(f"offline mode: unset HF_HUB_OFFLINE to reach {url}")
    if isinstance(error, HfHubHTTPError):
        return _bad_status(url, error.response)
    if isinstance(error, httpx2.TimeoutException):
        return OutageError(f"no byte within the timeout from {url}")
    return OutageError(f"no connection to {url} ({one_line(str(error)) or type(error).__name__})")


def _bad_status(url: str, response: httpx2.Response) -> InputError:
    """An error line for an HTTP error response."""
    status = response.status_code
    # The header of the last request tells whether a token was sent: a redirect to another server drops it.
    if status in REFUSALS and "authorization" in response.request.headers:
        return OutageError(
            f"HTTP {status} from {url}: the token of HF_TOKEN or `hf auth login` is refused: it has expired, was "
            "withdrawn or lacks the right; log in again, or remove it (KiTS23 needs none)"
        )
    outage = status in {408, 429} or status >= httpx2.codes.INTERNAL_SERVER_ERROR
    return (OutageError if outage else InputError)(f"HTTP {status} from {url}")
