"""Volumes changed at random: nibabel's pixels or an error of one line; no other exception, no hang, no other pixels.

Each example is a case of two small volumes, one of them changed: its voxels, its header, its length, or the gzip file
around it. What is right is what nibabel reads, turned into KiTS order by nibabel's own functions.
"""

import bz2
import gzip
import io
import lzma
import signal
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from kidney_ssl.data import manifest
from kidney_ssl.data.checks import CHECKS
from kidney_ssl.data.reader import Reader
from kidney_ssl.errors import InputError

KITS = axcodes2ornt(("I", "P", "L"))
KITS_AFFINE = np.array([[0, 0, -0.7, 90], [0, -0.8, 0, 80], [-5, 0, 0, 300], [0, 0, 0, 1.0]])
ORDERS = ["IPL", "LPS", "RAS", "PIR", "SRA", "ASL"]
HANGS_S = 60  # a case takes milliseconds; this only turns a hang into a failure
EXTREMES = [0, 1, -1, 2, 3, 4, 5, 255, 0.5, 1.5, 2.25, 1e-38, 1e-9, 1e9, 3.4e38, np.nan, np.inf, -np.inf]
EXTREMES += [32767, 32768, -32768, -32769, 2**31 - 1, -(2**31)]

Change = Callable[[bytes], bytes]
Read = TypeVar("Read")


@contextmanager
def no_hang() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"no end after {HANGS_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANGS_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def nifti(array: np.ndarray, order: str = "IPL", *, two: bool = False, endianness: str = "<") -> bytes:
    """A file of a volume given in KiTS order: nibabel's header, then the voxels, first axis fastest."""
    turned = nib.Nifti1Image(np.empty(array.shape[:3]), KITS_AFFINE).as_reoriented(
        turn := ornt_transform(KITS, axcodes2ornt(tuple(order)))
    )
    array = apply_orientation(array, turn)
    header = (nib.Nifti2Header if two else nib.Nifti1Header)(endianness=endianness)
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_sform(turned.affine, code=1)
    header.set_qform(turned.affine, code=1)
    header.set_slope_inter(1, 0)
    stream = io.BytesIO()
    header.write_to(stream)
    return stream.getvalue() + array.astype(array.dtype.newbyteorder(endianness)).tobytes(order="F")


@st.composite
def pair(draw: st.DrawFn) -> dict[str, bytes]:
    """Imaging and labels of a case, each stored in its own way."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(1, 7)))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    imaging = generator.integers(-1000, 1500, shape).astype(draw(st.sampled_from(["int16", "int32", "<f4", "<f8"])))
    if imaging.dtype.kind == "f":
        imaging += generator.choice([0, 0.25, 0.5, 0.9], shape).astype(imaging.dtype)
    labels = generator.integers(0, 4, shape).astype(draw(st.sampled_from(["uint8", "uint8", "int16", "<f8"])))
    how = st.fixed_dictionaries(
        {"order": st.sampled_from(ORDERS), "two": st.booleans(), "endianness": st.sampled_from("<>")}
    )
    return {"imaging": nifti(imaging, **draw(how)), "segmentation": nifti(labels, **draw(how))}


def header_of(content: bytes) -> np.ndarray:
    """The header's fields, in their byte order."""
    for order in "<>":
        for size, kind in ((348, nib.nifti1.header_dtype), (540, nib.nifti2.header_dtype)):
            if struct.unpack(f"{order}i", content[:4])[0] == size:
                return np.frombuffer(content[:size], kind.newbyteorder(order)).copy()
    raise AssertionError


def offset_of(content: bytes) -> int:
    return int(header_of(content)["vox_offset"][0])


# What is done to the bytes of a volume, and, at the end, to the gzip file of it.


@st.composite
def header_bytes(draw: st.DrawFn) -> Change:
    damage = draw(st.lists(st.tuples(st.integers(0, 543), st.integers(0, 255)), min_size=1, max_size=6))

    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        for place, value in damage:
            changed[place % offset_of(content)] = value
        return bytes(changed)

    return change


NUMBERS = ["sizeof_hdr", "dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope", "scl_inter", "qform_code"]
NUMBERS += ["sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "srow_x", "srow_y", "srow_z"]


@st.composite
def header_fields(draw: st.DrawFn, names: tuple[str, ...] = tuple(NUMBERS)) -> Change:
    """Any number of the header set to any other, extreme ones above all."""
    value = st.sampled_from(EXTREMES) | st.integers(-(2**31), 2**31 - 1) | st.floats(width=32)
    chosen = draw(
        st.lists(st.tuples(st.sampled_from(names), st.integers(0, 7), value), min_size=1, max_size=3),
    )

    def change(content: bytes) -> bytes:
        header = header_of(content)
        for name, place, number in chosen:
            field = header[name].reshape(-1)
            if field.dtype.kind in "iu":
                limits = np.iinfo(field.dtype)
                whole = 0 if np.isnan(number) else int(np.clip(float(number), limits.min / 2, limits.max / 2))
                field[place % field.size] = whole
            else:
                with np.errstate(over="ignore"):
                    field[place % field.size] = number
        return header.tobytes() + content[header.nbytes :]

    return change


@st.composite
def scalings(draw: st.DrawFn) -> Change:
    """Slopes and intercepts that leave HU what they may be, mostly."""
    slope = draw(st.sampled_from([1, -1, 0.5, 0.3, 2, 10, -0.125]) | st.floats(-20, 20, width=32))
    intercept = draw(st.sampled_from([0, 0, 1, -1024, 0.7, -1000.25]) | st.floats(-3e4, 3e4, width=32))

    def change(content: bytes) -> bytes:
        header = header_of(content)
        header["scl_slope"], header["scl_inter"] = slope, intercept
        return header.tobytes() + content[header.nbytes :]

    return change


@st.composite
def affines(draw: st.DrawFn) -> Change:
    """One or two of: turned, scaled or flipped, moved, with other codes."""
    done = draw(st.sets(st.sampled_from(["little turn", "turn", "scale", "move", "codes"]), min_size=1, max_size=2))
    little = st.sampled_from([0.3, 0.9, 1.1, 7])
    many = st.sampled_from([45, 90, 180]) | st.floats(-180, 180)
    matrix = np.eye(4)
    for axis in range(3):
        angle = draw(little) if "little turn" in done and axis == 0 else draw(many) if "turn" in done else 0
        turn = np.eye(4)
        cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        turn[np.ix_([(axis + 1) % 3, (axis + 2) % 3], [(axis + 1) % 3, (axis + 2) % 3])] = [[cos, -sin], [sin, cos]]
        matrix = matrix @ turn
    some = st.sampled_from([1, 1, -1, 2, 1e-4, 0])
    scale = draw(st.tuples(some, some, some)) if "scale" in done else (1, 1, 1)
    some = st.sampled_from([0, 0.005, 0.03, -0.03, -3, 1e6])
    shift = draw(st.tuples(some, st.just(0), some)) if "move" in done else (0, 0, 0)
    codes = draw(st.sampled_from([(1, 0), (0, 1), (2, 0), (0, 0)])) if "codes" in done else (1, 1)

    def change(content: bytes) -> bytes:
        header = header_of(content)
        rows = np.stack([header[name][0] for name in ("srow_x", "srow_y", "srow_z")]).astype(float)
        changed = matrix @ np.vstack([rows, [0, 0, 0, 1]]) @ np.diag([*scale, 1])
        for name, row, by in zip(("srow_x", "srow_y", "srow_z"), changed, shift, strict=False):
            header[name] = row + np.array([0, 0, 0, by])
        header["qform_code"], header["sform_code"] = codes
        return header.tobytes() + content[header.nbytes :]

    return change


@st.composite
def voxels(draw: st.DrawFn) -> Change:
    """Voxels set to numbers that no HU and no label has, or to other bytes."""
    near = st.sampled_from([0, 1, 2, 3, 0.5, 1.5, 2.25, 1e-9])
    some = draw(st.sampled_from([near, st.sampled_from(EXTREMES), st.floats(width=32), st.integers(-1100, 3100)]))
    chosen = draw(st.lists(st.tuples(st.integers(0, 440), some), min_size=1, max_size=4))

    def change(content: bytes) -> bytes:
        header = header_of(content)
        size = header["bitpix"][0] // 8
        kind = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8"}[int(header["datatype"][0])]
        kind = np.dtype(header["dim"].dtype.byteorder + kind) if size > 1 else np.dtype(kind)
        values = np.frombuffer(content[offset_of(content) :], kind).copy()
        for place, number in chosen:
            with np.errstate(over="ignore", invalid="ignore"):
                values[place % values.size] = np.asarray(number).astype(kind)
        return content[: offset_of(content)] + values.tobytes()

    return change


@st.composite
def lengths(draw: st.DrawFn) -> Change:
    """Cut, longer, bytes moved, or byte order of a part exchanged."""
    how = draw(st.sampled_from(["cut", "append", "insert", "swap header", "swap voxels", "twice", "extension"]))
    place, more = draw(st.integers(0, 5000)), draw(st.binary(min_size=1, max_size=40))

    def change(content: bytes) -> bytes:
        at, offset, header = place % len(content), offset_of(content), header_of(content)
        if how == "extension":  # of the header, which is read over
            header["vox_offset"] = header.nbytes + 4 + 16 * len(more)
            order = ">" if header["sizeof_hdr"].dtype.byteorder == ">" else "<"
            extension = struct.pack(f"{order}ii", 16 * len(more), 6) + bytes(16 * len(more) - 8)
            return header.tobytes() + b"\1\0\0\0" + extension + content[offset:]
        return {
            "cut": content[:at],
            "append": content + more,
            "insert": content[:at] + more + content[at:],
            "swap header": header.byteswap().tobytes() + content[header.nbytes :],
            "swap voxels": content[:offset] + content[offset:][::-1],
            "twice": content + content,
        }[how]

    return change


@st.composite
def dimensions(draw: st.DrawFn) -> Change:
    """More dimensions, fewer, or other lengths, of the same number of voxels or of others."""
    other = st.lists(st.sampled_from([0, 1, 2, 3, 5, 7, 64, 1000, 32767, -1, -7]), max_size=7)
    keep = draw(st.booleans())
    dims = draw(st.lists(st.just(1), max_size=4) | other if keep else other)

    def change(content: bytes) -> bytes:
        header = header_of(content)
        shape = [int(length) for length in header["dim"][0][1:4]]
        lengths = (shape + dims)[:7] if keep else dims
        header["dim"] = [len(lengths), *lengths, *[1] * (7 - len(lengths))]
        return header.tobytes() + content[header.nbytes :]

    return change


@st.composite
def idle_fields(draw: st.DrawFn) -> Change:
    """Fields that decide neither where the voxels lie nor what they are: the volume must be read as before."""
    text, number = draw(st.binary(max_size=18)), draw(st.floats(-1e6, 1e6, width=32))
    chosen = draw(
        st.sets(
            st.sampled_from(["descrip", "aux_file", "intent_name", "cal_max", "cal_min", "toffset", "slice_duration"]),
            min_size=1,
        )
    )

    def change(content: bytes) -> bytes:
        header = header_of(content)
        for name in chosen:
            header[name] = text if header[name].dtype.kind == "S" else number
        return header.tobytes() + content[header.nbytes :]

    return change


@st.composite
def gzip_bytes(draw: st.DrawFn) -> Change:
    damage = draw(st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 255)), min_size=1, max_size=4))

    def change(file: bytes) -> bytes:
        changed = bytearray(file)
        for place, mask in damage:
            changed[place % len(file)] ^= mask
        return bytes(changed)

    return change


@st.composite
def gzip_lengths(draw: st.DrawFn) -> Change:
    how = draw(st.sampled_from(["cut", "append", "zeros", "insert", "another member", "empty member", "remove"]))
    place, more = draw(st.integers(0, 4000)), draw(st.binary(min_size=1, max_size=30))

    def change(file: bytes) -> bytes:
        at = place % len(file)
        return {
            "cut": file[:at],
            "append": file + more,
            "zeros": file + bytes(len(more)),
            "insert": file[:at] + more + file[at:],
            "another member": file + gzip.compress(more),
            "empty member": file + gzip.compress(b""),
            "remove": file[:at] + file[at + len(more) :],
        }[how]

    return change


def by_zip(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("imaging.nii", content)
    return stream.getvalue()


@st.composite
def packings(draw: st.DrawFn) -> Change:
    """The same bytes packed in another way, some of which are gzip."""
    level, at, name = draw(st.integers(0, 9)), draw(st.integers(0, 3000)), draw(st.binary(max_size=30))
    how = draw(st.sampled_from(["level", "members", "name", "zlib", "deflate", "bz2", "xz", "zip", "bare", "twice"]))

    def change(file: bytes) -> bytes:
        content = gzip.decompress(file)
        if how == "members":
            return gzip.compress(content[:at]) + gzip.compress(content[at:], level, mtime=0)
        if how == "name":  # the header's flags: an extra field, a name, a comment and a checksum
            start = b"\x1f\x8b\x08\x1e\0\0\0\0\0\xff" + struct.pack("<H", len(name)) + name
            start += name.replace(b"\0", b"") + b"\0" + name.replace(b"\0", b"") + b"\0"
            return start + struct.pack("<H", zlib.crc32(start) & 0xFFFF) + file[10:]
        return {
            "level": lambda: gzip.compress(content, level, mtime=at),
            "zlib": lambda: zlib.compress(content, level),
            "deflate": lambda: file[10:-8],
            "bz2": lambda: bz2.compress(content),
            "xz": lambda: lzma.compress(content),
            "zip": lambda: by_zip(content),
            "bare": lambda: content,
            "twice": lambda: gzip.compress(file),
        }[how]()

    return change


# Changes of the volume itself, and of the gzip file around it. Those in STRICT are refused if, and only if, nibabel or
# Python's gzip finds something wrong; of the others more is refused: oblique axes, bytes after the last voxel.
OF_THE_VOLUME = {
    "header bytes": header_bytes(),
    "header fields": header_fields(),
    "scalings": scalings(),
    "affines": affines(),
    "voxels": voxels(),
    "lengths": lengths(),
    "dimensions": dimensions(),
    "idle fields": idle_fields(),
}
OF_THE_FILE = {"gzip bytes": gzip_bytes(), "gzip lengths": gzip_lengths(), "packings": packings()}
STRICT = {"scalings", "voxels", "idle fields", *OF_THE_FILE}
EXAMPLES = max(40, settings().max_examples)  # of each kind of change


def by_nibabel(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values in float64 and the affine in mm, both in KiTS order."""
    image = nib.load(path, mmap=False)
    unit = {1: 1000.0, 3: 0.001}.get(int(image.header["xyzt_units"]) % 8, 1.0)
    image = image.__class__(image.dataobj, np.diag([unit, unit, unit, 1]) @ image.affine, image.header)
    values = image.get_fdata()
    values = values.reshape(values.shape[:3] + tuple(length for length in values.shape[3:] if length != 1))
    turn = ornt_transform(io_orientation(image.affine), KITS)
    return apply_orientation(values, turn), image.affine @ inv_ornt_aff(turn, values.shape)


def is_fine(path: Path, content: bytes) -> bool:
    """Whether Python's gzip gives the bytes that were packed, and nibabel finds HU or labels in them."""
    try:
        if gzip.decompress(path.read_bytes()) != content:
            return False
    except (OSError, EOFError, zlib.error):
        return False
    values, _ = by_nibabel(path)
    if "imaging" in path.name:
        return bool(np.isfinite(values).all() and (abs(np.rint(values) + 0.5) < 32768).all())
    return bool(np.isin(values, [0, 1, 2, 3]).all())


def is_axial(affine: np.ndarray) -> bool:
    """Whether the axes lie within a gantry's tilt of the body's."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool((abs(np.diag(directions[::-1])) > np.cos(np.deg2rad(30.01))).all())


def attempt(read: Callable[[str], Read], folder: Path) -> Read | None:
    """What a reader gives, or None after an error of one line that names the case."""
    try:
        return read(folder.name)
    except InputError as error:
        message = str(error)
        assert message.isprintable()  # and so on one line
        assert folder.name in message
        return None


def compare(folder: Path) -> tuple[bool, bool]:
    """Read a case as the stages do, by a manifest; whatever is read is nibabel's.

    Returns:
        Whether both volumes were read, and whether the labels were counted.
    """
    root = folder.parent
    manifest.write_manifest(root / "manifest.csv", manifest.scan(root, None, [], workers=1))
    reader = Reader(root, manifest.by_case(root / "manifest.csv"), CHECKS)
    if volumes := attempt(reader.volumes, folder):
        imaging, labels, in_plane, findings = volumes
        hu, affine = by_nibabel(folder / "imaging.nii.gz")
        masks, other = by_nibabel(folder / "segmentation.nii.gz")
        assert (imaging.dtype, labels.dtype) == (np.int16, np.uint8)
        assert np.array_equal(imaging, np.rint(hu))
        assert np.array_equal(labels, masks)
        assert labels.shape == imaging.shape
        agree = np.allclose(affine, other, rtol=0, atol=0.01)
        assert agree != any(one.startswith("grid: ") for one in findings)
        assert is_axial(affine)
        assert np.allclose(in_plane, np.linalg.norm(affine[:3, 1:3], axis=0))
    with TemporaryDirectory() as parts:  # an empty one each time: what was counted before would be taken from there
        counted = attempt(partial(reader.areas, parts=Path(parts)), folder)
    if counted:
        areas, spacing = counted
        masks, affine = by_nibabel(folder / "segmentation.nii.gz")
        assert areas.tolist() == [[int((plane == label).sum()) for label in range(4)] for plane in masks]
        assert is_axial(affine)
        assert np.allclose(spacing, np.linalg.norm(affine[:3, :3], axis=0))
    return volumes is not None, counted is not None


@pytest.mark.parametrize("name", [*OF_THE_VOLUME, *OF_THE_FILE])
def test_a_changed_volume_is_nibabels_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "case_1"
    folder.mkdir()
    outcomes: Counter[bool] = Counter()

    @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None)
    @given(pair(), (OF_THE_VOLUME | OF_THE_FILE)[name], st.sampled_from(["imaging", "segmentation"]))
    def check(contents: dict[str, bytes], change: Change, kind: str) -> None:
        if name in OF_THE_VOLUME:
            contents[kind] = change(contents[kind])
        for one, content in contents.items():
            packed = gzip.compress(content, 6, mtime=0)
            (folder / f"{one}.nii.gz").write_bytes(change(packed) if name in OF_THE_FILE and one == kind else packed)
        with no_hang():
            read, counted = compare(folder)
        outcomes[read] += 1
        if name in STRICT:
            imaging, labels = (is_fine(folder / f"{one}.nii.gz", contents[one]) for one in ("imaging", "segmentation"))
            assert (read, counted) == (imaging and labels, labels)

    check()
    assert outcomes.total() >= EXAMPLES
    # Neither all refused nor all read, so that both were tested; where nothing of weight changed, all must be read.
    assert outcomes[True] > EXAMPLES / 20
    assert (outcomes[False] > EXAMPLES / 20) == (name != "idle fields")
