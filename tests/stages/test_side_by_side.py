"""Several arms at a time: each stage in one chain, and in an order that can run."""

from pathlib import Path

import pytest
import yaml

from kidney_ssl import params
from stages.__main__ import chains

ROOT = Path(__file__).parents[2]
BESIDE = {"download", "select", "slice", "normalize", "initialize", "shortcut", "explain", "report"}


@pytest.mark.parametrize("study", ["params.yaml", "studies/kits23.yaml", "studies/smoke.yaml"])
def test_every_stage_of_an_arm_is_in_one_chain_behind_what_it_reads(study: str) -> None:
    settings = params.load(ROOT / study)
    stages = [stage for chain in chains(settings) for stage in chain]
    assert len(stages) == len(set(stages))
    assert {f"pretrain@{name}" for name in settings.pretrain.methods} <= set(stages)
    for chain in chains(settings):
        done: set[str] = set()
        for stage in chain:
            kind, _, name = stage.partition("@")
            arm = name.partition("-")[0]
            before = {"arm": settings.arms[arm].weights.replace("pretrain/", "pretrain@")} if kind == "arm" else {}
            before |= {"finetune": f"arm@{arm}", "evaluate": f"finetune@{name}"}
            assert before.get(kind, "initial/").startswith("initial/") or before[kind] in done
            done.add(stage)


def test_chains_hold_all_kinds_of_stages_but_the_shared_ones() -> None:
    kinds = {stage.partition("@")[0] for chain in chains(params.load(ROOT / "params.yaml")) for stage in chain}
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    # Further runs (extra_runs), which the default study has not, stand beside the runs of percents and seeds.
    assert kinds == {name.removesuffix("_extra") for name in stages} - BESIDE
