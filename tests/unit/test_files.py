"""Writers never write into a file that is there: it may be a link into a cache."""

import os

import numpy as np
import pandas as pd
import pytest

from kidney_ssl.data.arrays import ArrayWriter
from kidney_ssl.data.manifest import write_manifest
from kidney_ssl.files import place_file, replacing, write_csv, write_text
from kidney_ssl.jsonfile import write_json


def array(path):
    writer = ArrayWriter(path, (1, 2), np.int16)
    writer.append(np.zeros((1, 2), np.int16))
    writer.close()


def place(path):
    source = path.with_name("source")
    source.write_text("new")
    place_file(source, path)


WRITERS = {
    "array": array,
    "csv": lambda path: write_csv(path, pd.DataFrame({"a": [1]})),
    "json": lambda path: write_json(path, {"a": 1}),
    "manifest": lambda path: write_manifest(path, []),
    "place": place,
    "text": lambda path: write_text(path, "new"),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_what_a_link_leads_to_stays_as_it_is(tmp_path, name, link):
    kept, path = tmp_path / "kept", tmp_path / "folder" / "out.npz"
    kept.write_text("old")
    path.parent.mkdir()
    link(kept, path)
    WRITERS[name](path)
    assert kept.read_text() == "old"
    assert path.read_bytes() != b"old"
    assert not path.is_symlink()


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_left_beside_a_file(tmp_path, name):
    WRITERS[name](tmp_path / "out.npz")
    assert {path.name for path in tmp_path.iterdir()} <= {"out.npz", "out.npz.sha256", "source"}


def test_a_failed_writer_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail():
        with replacing(path) as beside:
            beside.write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [one.read_text() for one in tmp_path.iterdir()] == ["old"]
