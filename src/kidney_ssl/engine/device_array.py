"""Arrays that trainings read: held on the device if they fit, else read from the memory map one batch ahead."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from kidney_ssl.engine.device import memory_errors

T = TypeVar("T")
BLOCK = 256  # rows uploaded at a time


class DeviceArray:
    """Rows of an array (N, ...), returned on the device.

    Args:
        array: usually memory-mapped.
        device: where rows are returned.
        resident: `always` holds the array on the device, `never` reads rows when they are needed, `auto` holds it if it
            fits into half of the free memory there.

    Raises:
        InputError: the array is to be held and does not fit.
    """

    def __init__(self, array: np.ndarray, device: torch.device, resident: str = "auto") -> None:
        self.array, self.device = array, device
        self.held: Tensor | None = None
        if resident == "always" or (resident == "auto" and array.nbytes <= free_bytes(device) // 2):
            with memory_errors("arrays of slices"):
                kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
                held = torch.empty(array.shape, dtype=kind, device=device)
                # Block by block: the whole array at once would also fill the host's memory.
                for start in range(0, len(array), BLOCK):
                    held[start : start + BLOCK] = torch.from_numpy(np.array(array[start : start + BLOCK]))
            self.held = held

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows (B,) int64 on the device -> (B, ...) there; waits for the device unless the array is held."""
        return self.read(rows.cpu()).to(self.device) if self.held is None else self.held[rows]

    def batches(self, rows: Sequence[Tensor], there: Sequence[Tensor]) -> Iterator[Tensor]:
        """Batches, without waiting for the device; `rows` (B,) int64 on the CPU, `there` the same on the device."""
        if self.held is not None:
            yield from (self.held[at] for at in there)
        else:
            # Copies from page-locked memory run asynchronously; the memory is reused only after the copy.
            yield from (read.to(self.device, non_blocking=True) for read in one_ahead(self.read, rows))

    def read(self, rows: Tensor) -> Tensor:
        """Rows (B,) int64 on the CPU -> (B, ...) there, in page-locked memory if the device is a GPU."""
        found = torch.from_numpy(np.asarray(self.array[rows.numpy()]))
        return found.pin_memory() if self.device.type == "cuda" else found


def one_ahead(read: Callable[[Tensor], T], batches: Sequence[Tensor]) -> Iterator[T]:
    """Read batches in a thread: the next one while the current one is used."""
    with ThreadPoolExecutor(1) as thread:
        reading = [thread.submit(read, batch) for batch in batches[:1]]
        for following in batches[1:]:
            found = reading.pop().result()
            reading.append(thread.submit(read, following))
            yield found
        yield from (last.result() for last in reading)


def free_bytes(device: torch.device) -> int:
    """Free bytes of a GPU, or of the host without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil  # noqa: PLC0415 - needed only where a part is read

    return int(psutil.virtual_memory().available)
