"""What a killed dvc left torn: cut back to what is whole, and nothing else touched."""

import fcntl
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kidney_ssl.yamlfile import read_yaml
from stages import mend

ROOT = Path(__file__).parents[2]
STAGE = """  {name}:
    cmd: python -m stages.{name}
    deps:
    - path: stages/{name}.py
      hash: md5
      md5: 40849a6917d7c91602e73f5f66da89e4
      size: 9714
    params:
      params.yaml:
        pretrain.methods:
          rotation:
            options: {{}}
    outs:
    - path: data/{name}
      hash: md5
      md5: a2752bc38bf3d9629cf07d586f75bd2c.dir
      size: 2906
      nfiles: 3
"""
WHOLE = "schema: '2.0'\nstages:\n" + "".join(STAGE.format(name=name) for name in ("download", "pretrain@a", "report"))


def readable(text: str) -> bool:
    """DVC's own word."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(text, "dvc.lock"))
    except (YAMLFileCorruptedError, Invalid):
        return False
    return True


@given(st.integers(0, len(WHOLE) - 1))
@example(0)
@example(len("schema: '2.0'\nstages:\n"))
@example(WHOLE.index("  report:"))
@example(WHOLE.index("  report:") + 2)
@example(WHOLE.index("  report:") + 5)
@example(WHOLE.index("06", WHOLE.index("size: 2906")))
def test_a_lock_torn_anywhere_is_read_again_and_keeps_the_stages_before_the_tear(cut):
    torn = WHOLE[:cut]
    found = mend.mended(torn)
    assert torn.startswith(found)
    assert not found or readable(found)
    stages = read_yaml(found)["stages"] if found else {}
    whole = read_yaml(WHOLE)["stages"]
    before = [name for name in whole if cut > WHOLE.index(f"  {name}:") + len(STAGE.format(name=name)) - 1]
    assert set(before) <= set(stages)
    assert {name: stages[name] for name in before} == {name: whole[name] for name in before}


def test_the_committed_lock_is_whole():
    text = (ROOT / "dvc.lock").read_text()
    assert mend.mended(text) == text


@pytest.mark.parametrize("cut", [0, 30, WHOLE.index("  report:")])
def test_a_lock_torn_early_is_taken_from_the_copy_of_the_last_stage(folder, cut):
    two = WHOLE[: WHOLE.index("  report:")]
    (folder / "dvc.lock").write_text(two)
    mend.keep()
    (folder / "dvc.lock").write_text(WHOLE[:cut])
    mend.main()
    assert (folder / "dvc.lock").read_text() == two


def test_a_lock_torn_late_is_cut_when_it_has_more_than_the_copy(folder):
    (folder / "dvc.lock").write_text(WHOLE[: WHOLE.index("  pretrain")])
    mend.keep()
    (folder / "dvc.lock").write_text(WHOLE[:-5])
    mend.main()
    assert list(read_yaml((folder / "dvc.lock").read_text())["stages"]) == ["download", "pretrain@a"]


def test_a_lock_is_not_copied_while_dvc_writes_it(folder):
    (folder / "dvc.lock").write_text(WHOLE[:100])
    with (folder / ".dvc/tmp/lock").open() as own:
        fcntl.flock(own, fcntl.LOCK_EX)
        mend.keep()
    assert not (folder / "checkpoints").exists()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    for name in ("lock", "rwlock.lock"):
        (tmp_path / ".dvc/tmp" / name).touch()
    return tmp_path


def test_both_files_are_mended_and_it_is_said(folder, capsys):
    (folder / "dvc.lock").write_text(WHOLE[:-20])
    (folder / ".dvc/tmp/rwlock").write_text('{"write": {"/a')
    mend.main()
    assert list(read_yaml((folder / "dvc.lock").read_text())["stages"]) == ["download", "pretrain@a"]
    assert not (folder / ".dvc/tmp/rwlock").exists()
    assert "dvc.lock was torn: 2 stages of it are saved" in capsys.readouterr().out


def test_an_empty_lock_which_dvc_refuses_is_removed(folder):
    assert not readable("")
    (folder / "dvc.lock").touch()
    mend.main()
    assert not (folder / "dvc.lock").exists()


def test_half_an_entry_of_the_run_cache_is_removed_and_a_whole_one_kept(folder):
    runs = folder / ".dvc/cache/runs"
    for name in ("ab/both", "ab/half", "cd/empty"):
        (runs / name).mkdir(parents=True)
    for name in ("ab/both/.x7K.tmp", "ab/half/.x7K.tmp", f"ab/both/{'0' * 64}"):
        (runs / name).touch()
    mend.main()
    assert [path.relative_to(runs).as_posix() for path in runs.glob("*/**/*")] == ["ab/both", f"ab/both/{'0' * 64}"]


def test_what_is_whole_stays_as_it_is(folder, capsys):
    (folder / "dvc.lock").write_text(WHOLE)
    (folder / ".dvc/tmp/rwlock").write_text("{}")
    mend.main()
    assert (folder / "dvc.lock").read_text() == WHOLE
    assert (folder / ".dvc/tmp/rwlock").read_text() == "{}"
    assert capsys.readouterr().out == ""


def test_files_of_a_dvc_at_work_are_left_alone(folder):
    (folder / "dvc.lock").write_text(WHOLE[:-20])
    (folder / ".dvc/tmp/rwlock").write_text("")
    with (folder / ".dvc/tmp/lock").open() as own, (folder / ".dvc/tmp/rwlock.lock").open() as other:
        for stream in (own, other):
            fcntl.flock(stream, fcntl.LOCK_EX)
        mend.main()
    assert (folder / "dvc.lock").read_text() == WHOLE[:-20]
    assert (folder / ".dvc/tmp/rwlock").exists()
