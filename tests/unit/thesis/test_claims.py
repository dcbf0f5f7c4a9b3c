"""Verdicts on simulated studies whose truth is known."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from kidney_ssl.statistics.analysis_plan import compare
from kidney_ssl.statistics.arms import arms_of_tables
from kidney_ssl.statistics.bootstrap import symmetric
from kidney_ssl.statistics.class_drops import class_drops
from kidney_ssl.statistics.comparisons import Comparison
from kidney_ssl.statistics.result import Estimate
from kidney_ssl.statistics.saliency import mean_correlation
from kidney_ssl.thesis.arm_roles import Roles
from kidney_ssl.thesis.claims import claims_markdown, judge, oracle_words
from kidney_ssl.thesis.evidence import TOO_FEW, Evidence
from kidney_ssl.thesis.rules import CLAIMS
from tests.unit.report.simulated_arms import METHODS, PLAN, predictions, settings

ARMS = ("random", "imagenet", *METHODS, "supervised", "unsupervised")
# Skills in the order that the thesis reports.
THESIS = dict.fromkeys(ARMS, 0.5) | {"imagenet": 1.3, "supervised": 1.8, "unsupervised": 1.8, "random": 0.5}
THESIS |= {"rotation": 1.0, "genesis": 1.0, "simclr": 1.0}
OF_ARMS = {
    "no_pretraining_beats_imagenet",
    "inpainting_and_cpc_harm_most",
    "genesis_and_simclr_harm_least",
    "augmentations_help",
}
# Claims that some arm is better or worse than another: false where all are alike.
OF_DIFFERENCES = OF_ARMS - {"no_pretraining_beats_imagenet"} | {"imagenet_beats_random", "rotation_drop_even"}


def verdicts(skills, params=None, **drawn):
    params = params or settings()
    judged = judge(Evidence(params, {100: predictions(skills, **drawn)}))
    return {one["id"]: one for one in judged["claims"]}


@pytest.fixture(scope="module")
def thesis():
    return verdicts(THESIS, own=0.2)


def test_what_the_thesis_claims_is_supported_where_it_is_so(thesis):
    assert {name: thesis[name]["verdict"] for name in OF_ARMS} == dict.fromkeys(OF_ARMS, "supported")
    assert all(thesis[name]["reason"] is None for name in OF_ARMS)


def test_the_contrary_is_not_supported():
    turned = {arm: 2 - skill for arm, skill in THESIS.items()} | {"imagenet": 1.2}
    found = verdicts(turned, own=0.2)
    assert {name: found[name]["verdict"] for name in OF_ARMS} == dict.fromkeys(OF_ARMS, "not supported")


def test_a_claim_whose_premise_is_not_shown_is_undecided():
    # No task harms, so none harms least; and a loss that is not there has no spread, even or uneven.
    skills = THESIS | {"imagenet": 0.4}
    found = verdicts(skills, own=0.2, shift={"rotation": {"tumor": 1.0, "kidney": 1.0}})
    for name in ("genesis_and_simclr_harm_least", "rotation_drop_even"):
        assert (found[name]["verdict"], found[name]["reason"][:24]) == ("undecided", "its premise is not shown")
    assert found["no_pretraining_beats_imagenet"]["verdict"] == "not supported"
    assert found["inpainting_and_cpc_harm_most"]["verdict"] == "not supported"


def test_methods_that_the_thesis_does_not_have_enter_no_claim():
    params = settings()
    for name in ("byol", "identity", "relative_position"):
        params["pretrain"]["methods"][name] = {"method": name, "start": "imagenet", "seeds": [0], "options": {}}
        params["arms"][name] = {"weights": f"pretrain/{name}", "augmentation": "none"}
    params["arms"]["basic"] = {"weights": "initial/imagenet", "augmentation": "basic"}
    others = dict.fromkeys(("byol", "identity", "relative_position", "basic"), 3.0)
    tables = predictions(THESIS | others, own=0.2)
    maps = {arm: np.random.default_rng(len(arm)).uniform(size=(40, 2, 2)) for arm in tables}
    cases = [f"case_{n:05d}" for n in range(40)]
    found = judge(Evidence(params, {100: tables}, maps=maps, map_cases=cases))["claims"]
    only = {arm: one for arm, one in tables.items() if arm not in others}
    without = {arm: one for arm, one in maps.items() if arm not in others}
    assert found == judge(Evidence(settings(), {100: only}, maps=without, map_cases=cases))["claims"]


def test_arms_that_are_the_same_support_no_difference_and_nothing_beats_imagenet():
    same = predictions({"imagenet": 1.0})["imagenet"]
    judged = judge(Evidence(settings(), {100: dict.fromkeys(ARMS, same)}))
    found = {one["id"]: one["verdict"] for one in judged["claims"]}
    assert found["no_pretraining_beats_imagenet"] == "supported"
    premised = {"genesis_and_simclr_harm_least", "rotation_drop_even"}
    assert {found[name] for name in OF_DIFFERENCES - premised} == {"not supported"}
    assert {found[name] for name in premised} == {"undecided"}


@pytest.mark.parametrize(("cases", "few"), [(29, True), (30, False)])
def test_under_30_cases_nothing_is_said(cases, few):
    found = verdicts(THESIS, own=0.1, cases=cases)
    asked = {name: one for name, one in found.items() if one["verdict"] != "not asked"}
    assert set(asked) == OF_ARMS | OF_DIFFERENCES
    said = {name for name, one in asked.items() if (one["reason"] or "").startswith("too few to say")}
    assert said == (set(asked) if few else set())
    assert all(one["verdict"] == "undecided" for one in asked.values()) == few


def test_claims_are_undecided_where_few_cases_hold_a_tumor():
    tables = predictions(THESIS, own=0.1)
    few = set(sorted(tables["random"][0]["case"].unique())[:29])
    tables = {arm: [one[(one["label"] == 0) | one["case"].isin(few)]] for arm, (one,) in tables.items()}
    found = {one["id"]: one for one in judge(Evidence(settings(), {100: tables}))["claims"]}
    for name in OF_ARMS:
        assert (found[name]["verdict"], found[name]["reason"]) == ("undecided", TOO_FEW)
    assert found["imagenet_beats_random"]["reason"] != TOO_FEW  # every case has an accuracy


def test_where_all_arms_are_alike_false_support_is_rare():
    runs = 60
    count = dict.fromkeys(OF_DIFFERENCES, 0)
    wrong = 0
    for seed in range(runs):
        found = verdicts(dict.fromkeys(ARMS, 1.0), seed=seed, own=0.6, cases=40)
        for name in OF_DIFFERENCES:
            count[name] += found[name]["verdict"] == "supported"
        wrong += found["no_pretraining_beats_imagenet"]["verdict"] == "not supported"
    # Of 60 studies at 5 % more than 7 are seen once in a hundred times.
    assert max(count.values()) <= 2
    assert wrong <= 7


def test_an_arm_that_is_better_by_the_margin_is_rarely_said_not_to_beat():
    skills = {"imagenet": 1.0, "rotation": 1.07}
    areas = {}
    for arm, (table,) in predictions(skills, cases=40_000).items():
        kept = table[table["class"] != "background"]
        areas[arm] = roc_auc_score(kept["label"], kept["probability"])
    truth = areas["rotation"] - areas["imagenet"]
    params = settings(methods=("rotation",), margin=truth)
    params["arms"] = {arm: params["arms"][arm] for arm in skills}
    said = [verdicts(skills, params, seed=seed)["no_pretraining_beats_imagenet"]["verdict"] for seed in range(100, 200)]
    assert truth > 0.01
    assert said.count("supported") <= 11  # 5 of 100 expected, 11 or fewer in 99 of 100 times


@pytest.mark.parametrize(
    ("skill", "own", "cases", "verdict"),
    [(0.35, 0.2, 500, "supported"), (1.0, 0.2, 60, "not supported"), (0.0, 0.2, 60, "not supported")],
)
def test_a_gain_of_20_points_is_supported_near_it_alone(skill, own, cases, verdict):
    skills = THESIS | {"imagenet": 1.1, "random": skill}
    one = verdicts(skills, own=own, cases=cases)["imagenet_beats_random"]
    assert one["verdict"] == verdict, one["figures"]


def test_verdicts_rest_on_the_intervals_of_the_comparisons(thesis):
    params = settings()
    found = compare(predictions(THESIS, own=0.2), params["analysis"]).differences
    (row,) = [one for one in found if (one.arm, one.metric, one.family) == ("cpc", PLAN["primary"], "baseline")]
    assert thesis["no_pretraining_beats_imagenet"]["figures"][-1] == (
        f"cpc - imagenet: {row.difference.value:+.2f} ({row.difference.low:+.2f} to {row.difference.high:+.2f})"
    )


def test_an_uneven_drop_is_seen_and_an_even_one_is_not_called_uneven():
    skills = {"imagenet": 1.6, "rotation": 1.6}
    params = settings(methods=("rotation",), margin=0.06)
    params["arms"] = {arm: params["arms"][arm] for arm in skills}
    uneven = {"rotation": {"tumor": -1.5}}
    assert verdicts(skills, params, shift=uneven, cases=200)["rotation_drop_even"]["verdict"] == "not supported"
    even = {"rotation": {"tumor": -0.8, "kidney": 0.8, "background": 0.8}}
    one = verdicts(skills, params, shift=even, cases=600, own=0.0)["rotation_drop_even"]
    assert one["verdict"] == "supported", one["figures"]


def test_class_drops_are_plain_differences_of_accuracies():
    tables = predictions({"imagenet": 1.0, "rotation": 0.6}, cases=40)
    drops, found = class_drops(arms_of_tables(tables), "rotation", "imagenet", count=200, seed=0)
    plain = {}
    for kind in ("tumor", "kidney", "background"):
        right = {
            arm: ((one["probability"] >= 0.5) == (one["label"] == 1))[one["class"] == kind].mean()
            for arm, (one,) in tables.items()
        }
        plain[kind] = right["imagenet"] - right["rotation"]
    assert drops == pytest.approx(plain)
    assert {(one.arm, one.against): one.difference.value for one in found} == pytest.approx(
        {
            ("tumor", "kidney"): plain["tumor"] - plain["kidney"],
            ("tumor", "background"): plain["tumor"] - plain["background"],
            ("kidney", "background"): plain["kidney"] - plain["background"],
        }
    )
    for one in found:
        own, narrow, joint = (e.high - e.value for e in (one.difference, one.equivalence, one.simultaneous))
        assert 0 < narrow < own <= joint


def test_without_a_class_the_drops_are_open_with_their_reason():
    tables = {
        arm: [one[one["class"] != "kidney"]] for arm, (one,) in predictions({"imagenet": 1.0, "rotation": 0.6}).items()
    }
    drops, found = class_drops(arms_of_tables(tables), "rotation", "imagenet", count=100, seed=0)
    assert set(drops) == {"tumor", "background"}
    assert {one.difference for one in found} == {Estimate(reason="no kidney slice in the test part")}
    params = settings(methods=("rotation",), primary="auroc_against_kidney")
    params["arms"] = {arm: params["arms"][arm] for arm in ("imagenet", "rotation")}
    judged = {one["id"]: one for one in judge(Evidence(params, {100: tables}))["claims"]}
    for name in ("rotation_drop_even", "no_pretraining_beats_imagenet"):
        assert (judged[name]["verdict"], judged[name]["reason"]) == ("undecided", "no kidney slice in the test part")


def map_evidence(maps, randomised=0.1):
    cases = [f"case_{n:05d}" for n in range(len(next(iter(maps.values()))))]
    explained = {arm: {"correlation_randomised": randomised} for arm in maps}
    return Evidence(settings(), {100: predictions(THESIS)}, explained=explained, maps=maps, map_cases=cases)


@pytest.mark.parametrize(
    ("noise", "randomised", "verdict"),
    [(0.2, 0.1, "supported"), (0.2, 0.99, "not supported"), (5.0, 0.1, "not supported"), (1.0, 0.1, "undecided")],
)
def test_maps_are_alike_above_the_bar_and_above_random_weights(noise, randomised, verdict):
    generator = np.random.default_rng(0)
    common = generator.normal(size=(40, 4, 4))
    maps = {arm: common + noise * generator.normal(size=common.shape) for arm in ("random", "imagenet", "cpc")}
    judged = {one["id"]: one for one in judge(map_evidence(maps, randomised))["claims"]}["activations_alike"]
    assert judged["verdict"] == verdict, judged["figures"]


def test_the_mean_correlation_is_numpys_correlation_over_slices_that_have_one():
    generator = np.random.default_rng(1)
    maps = {arm: generator.uniform(size=(6, 3, 3)) for arm in "abc"}
    maps["a"][4] = 0
    maps["a"][5] = maps["b"][5] = 0
    each = []
    for row in range(5):
        pairs = [("a", "b"), ("a", "c"), ("b", "c")] if row < 4 else [("b", "c")]
        each.append(np.mean([np.corrcoef(maps[i][row].ravel(), maps[j][row].ravel())[0, 1] for i, j in pairs]))
    found, cases = mean_correlation(maps, list("uuvvww"), count=100, seed=0)
    assert found.value == pytest.approx(np.mean(each))
    assert cases == 3
    alone, _ = mean_correlation({"a": maps["a"]}, list("uuvvww"), count=100, seed=0)
    assert alone == Estimate(reason="no slice with maps of two arms")
    assert mean_correlation(maps, ["u"] * 6, count=100, seed=0)[0].reason == "one case with maps: no interval"


def sharpness(dice, mse, option="zero"):
    params = settings()
    methods, figures = params["pretrain"]["methods"], {}
    for loss, values in (("dice", dice), ("mse", mse)):
        name, seeds = f"inpaint_{loss}", list(range(len(values)))
        options = {"loss": loss, "fill": option if loss == "mse" else "zero"}
        methods[name] = {"method": "inpaint_random", "start": "random", "seeds": seeds, "options": options}
        figures[name] = {
            str(seed): {"validation_sharpness": value, "options": options}
            for seed, value in zip(seeds, values, strict=True)
        }
    evidence = Evidence(params, {100: predictions(THESIS)}, pretrainings=figures)
    return {one["id"]: one for one in judge(evidence)["claims"]}["dice_sharper_than_mse"]


def test_sharpness_needs_seeds_and_pretrainings_that_differ_in_their_loss_alone():
    assert sharpness([0.5, 0.52, 0.51], [0.3, 0.31, 0.29])["verdict"] == "supported"
    assert sharpness([0.3, 0.31, 0.29], [0.5, 0.52, 0.51])["verdict"] == "not supported"
    assert sharpness([0.5, 0.2, 0.4], [0.3, 0.31, 0.29])["verdict"] == "undecided"
    one = sharpness([0.5], [0.3])
    assert (one["verdict"], one["reason"]) == ("undecided", "fewer than 3 seeds of each loss: no interval")
    assert one["figures"] == ["inpaint_random from random: dice 0.500, mse 0.300; 1 and 1 seed(s)"]
    assert sharpness([0.5, 0.52, 0.51], [0.3, 0.31, 0.29], option="noise")["verdict"] == "not asked"


def test_the_interval_of_sharpness_is_welchs():
    dice, mse = np.array([0.5, 0.52, 0.51, 0.55]), np.array([0.3, 0.35, 0.29])
    parts = [one.var(ddof=1) / len(one) for one in (dice, mse)]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(one) - 1) for part, one in zip(parts, (dice, mse), strict=True))
    from scipy.stats import t

    middle, half = dice.mean() - mse.mean(), t.ppf(0.975, freedom) * np.sqrt(sum(parts))
    (told,) = sharpness(dice.tolist(), mse.tolist())["figures"]
    assert f"difference {middle:+.2f} ({middle - half:+.2f} to {middle + half:+.2f})" in told


def oracle_study(skills, percents=(100, 10, 25), small=(10, 25), **drawn):
    """An oracle with the given skills at the `small` budgets, and better than everything at the others."""
    params = settings()
    params["pretrain"]["methods"]["oracle"] = {"method": "oracle", "start": "random", "seeds": [0], "options": {}}
    params["arms"]["oracle"] = {"weights": "pretrain/oracle", "augmentation": "none"}
    arms = THESIS | {"oracle": 1.3}
    tables = {percent: predictions(arms | (skills if percent in small else {}), **drawn) for percent in percents}
    return judge(Evidence(params, tables))["oracle"]


def test_the_oracle_is_judged_at_every_small_budget():
    beat = oracle_study({"oracle": 0.5, "random": 0.5}, small=(10,))
    assert beat["verdict"] == "beat"
    assert [(one["percent"], one["verdict"]) for one in beat["budgets"]] == [(10, "did not beat"), (25, "beat")]
    said = oracle_words(beat)
    assert "beat the weights it started from with 25 % of the training cases (oracle - random: " in said
    assert "could show. It did not with 10 % of the training cases (" in said
    lost = oracle_study({"oracle": 0.5, "random": 0.5})
    assert lost["verdict"] == "did not beat"
    assert "could not have shown a benefit" in oracle_words(lost)
    few = oracle_study({"oracle": 1.3, "random": 0.5}, cases=20)
    assert few["verdict"] == "undecided"
    assert "is not known" in oracle_words(few)
    assert "too few" in oracle_words(few)
    asked = oracle_study({}, percents=(100,))
    assert (asked["verdict"], asked["budgets"]) == ("not asked", None)
    assert "was not tested" in oracle_words(asked)


def test_more_small_budgets_widen_the_oracles_intervals():
    alone, together = (
        oracle_study({"oracle": 0.9, "random": 0.5}, percents=percents)["budgets"][0]["figure"]
        for percents in ((100, 10), (100, 10, 25, 50))
    )
    lows = [float(re.search(r"\((\S+) to", one)[1]) for one in (alone, together)]
    assert alone.split("(")[0] == together.split("(")[0]
    assert lows[1] < lows[0]


def test_the_oracle_takes_part_in_no_claim():
    params = settings()
    params["pretrain"]["methods"]["oracle"] = {"method": "oracle", "start": "random", "seeds": [0], "options": {}}
    params["arms"]["oracle"] = {"weights": "pretrain/oracle", "augmentation": "none"}
    found = verdicts(THESIS | {"oracle": 3.0}, params, own=0.2)
    assert found["no_pretraining_beats_imagenet"]["verdict"] == "supported"
    assert not any("oracle" in told for one in found.values() for told in one["figures"])


def test_roles_follow_weights_and_not_names():
    params = settings()
    params["arms"] = {
        "imagenet": {"weights": "initial/random", "augmentation": "none"},
        "longer": {"weights": "initial/random", "augmentation": "none", "extra_updates": 9},
        "x": {"weights": "pretrain/rotation", "augmentation": "none"},
        "y": {"weights": "pretrain/cpc", "augmentation": "basic"},
        "z": {"weights": "initial/random", "augmentation": "supervised"},
        "ablation": {"weights": "initial/random", "augmentation": "unsupervised", "options": {"protect": "nothing"}},
        "x_modern": {"weights": "pretrain/rotation", "augmentation": "none", "recipe": "modern"},
        "z_modern": {"weights": "initial/random", "augmentation": "unsupervised", "recipe": "modern"},
    }
    roles = Roles.of(params)
    assert (roles.random, roles.imagenet, roles.oracle, roles.baseline) == ("imagenet", None, None, "imagenet")
    assert roles.pretrained == {"x": ("rotation", "imagenet")}
    assert roles.augmented == {"supervised": ("z", "imagenet")}
    assert roles.of_thesis == ["imagenet", "x", "z"]


def test_what_a_study_does_not_have_is_not_asked_and_says_what_it_needs():
    params = settings(methods=("rotation",), baseline="random")
    params["arms"] = {arm: params["arms"][arm] for arm in ("random", "rotation")}
    found = verdicts({"random": 1.0, "rotation": 0.5}, params)
    asked = {name for name, one in found.items() if one["verdict"] != "not asked"}
    assert asked == {"rotation_drop_even"}
    assert all(one["reason"].startswith("not asked by this study: ") for n, one in found.items() if n not in asked)
    assert "network: resnet34" in found["larger_networks_bring_little"]["reason"]


def test_every_claim_has_its_own_id_sentence_and_rule_and_the_verdicts_are_plain(thesis):
    assert len(thesis) == len(CLAIMS) == 9
    assert len({one["sentence"] for one in thesis.values()}) == 9
    assert all(one["rule"] for one in thesis.values())
    judged = judge(Evidence(settings(), {100: predictions(THESIS)}))
    assert json.loads(json.dumps(judged, allow_nan=False)) == judged
    assert judged == judge(Evidence(settings(), {100: predictions(THESIS)}))


def test_the_table_for_people_has_every_claim_and_heads_a_phantoms(thesis):
    judged = judge(Evidence(settings(), {100: predictions(THESIS)}))
    text = claims_markdown(judged, source="kits23")
    assert all(f"| {one['sentence']} | " in text for one in judged["claims"])
    assert "patients" not in text
    assert "say nothing about patients" in claims_markdown(judged, source="phantom")


@given(st.floats(-0.5, 0.5), st.floats(1e-3, 0.3), st.floats(1.0, 2.0), st.floats(1e-3, 0.2))
def test_what_a_difference_shows_turns_with_its_sign_and_never_grows_with_more_comparisons(point, own, wider, margin):
    one, other = (
        Comparison("a", "b", "auroc", *(symmetric(sign * point, half) for half in (own, 0.84 * own, wider * own)), 40)
        for sign in (1, -1)
    )
    turned = {"above": "below", "below": "above"}
    assert other.shows(margin) == turned.get(one.shows(margin), one.shows(margin))
    assert one.shows(margin, jointly=True) in (one.shows(margin), "open")
    # Equivalent when the whole 90 % interval lies within the margin, and only then.
    assert (one.shows(margin) == "equivalent") == (abs(point) + 0.84 * own < margin)
