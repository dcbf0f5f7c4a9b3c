"""Roles of a study's arms, from their settings: names can be chosen freely, so roles never come from names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PATCHED = ("inpaint_random", "inpaint_kidney", "inpaint_switch", "cpc")
GENTLE = ("genesis", "simclr")
ROTATION = "rotation"
METHODS = (*PATCHED, ROTATION, *GENTLE)  # the thesis's pretext methods: no claim is about others
AUGMENTATIONS = ("supervised", "unsupervised")


@dataclass(frozen=True)
class Roles:
    """Arms by role; None or empty where a study has none.

    Attributes:
        baseline: the arm that all are compared with.
        random: random weights, no augmentation, no extra updates, no recipe of its own.
        imagenet: the same with ImageNet weights.
        oracle: the arm with the encoder pretrained on masks, and the arm with the initial weights of that pretraining.
        pretrained: arm -> (method, start), no augmentation and no recipe of its own, of the thesis's methods.
        augmented: augmentation with its own defaults -> (arm, the arm of the same weights without one).
        of_thesis: all arms that the thesis could have: its weights, its augmentations, nothing else changed.
    """

    baseline: str | None
    random: str | None
    imagenet: str | None
    oracle: tuple[str, str] | None
    pretrained: Mapping[str, tuple[str, str]]
    augmented: Mapping[str, tuple[str, str]]
    of_thesis: Sequence[str]

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Roles":
        """Read the roles out of the parameters."""
        arms, methods = params["arms"], params["pretrain"]["methods"]
        plain = {
            arm: block["weights"]
            for arm, block in arms.items()
            if block["augmentation"] == "none" and _trained_as_all(block)
        }
        by_weights = {weights: arm for arm, weights in reversed(plain.items())}
        started = {
            arm: (methods[name]["method"], methods[name]["start"])
            for arm, weights in plain.items()
            for kind, _, name in [weights.partition("/")]
            if kind == "pretrain"
        }
        augmented: dict[str, tuple[str, str]] = {}
        for arm, block in arms.items():
            kind, same = block["augmentation"], by_weights.get(block["weights"])
            if kind in AUGMENTATIONS and same and not block.get("options") and _trained_as_all(block):
                augmented.setdefault(kind, (arm, same))
        baseline = params["analysis"]["baseline"]
        return cls(
            baseline=baseline if baseline in arms else None,
            random=by_weights.get("initial/random"),
            imagenet=by_weights.get("initial/imagenet"),
            oracle=next(
                (
                    (arm, by_weights[f"initial/{start}"])
                    for arm, (method, start) in started.items()
                    if method == "oracle" and f"initial/{start}" in by_weights
                ),
                None,
            ),
            pretrained={arm: one for arm, one in started.items() if one[0] in METHODS},
            augmented=augmented,
            of_thesis=[arm for arm, block in arms.items() if _of_thesis(block, methods)],
        )

    def methods(self) -> set[str]:
        """The pretext methods that some arm starts from."""
        return {method for method, _ in self.pretrained.values()}

    def arms(self, methods: Sequence[str]) -> list[str]:
        """The arms that start from one of these methods, in the order of the study."""
        return [arm for arm, (method, _) in self.pretrained.items() if method in methods]

    def start(self, arm: str) -> str:
        """What the pretraining of an arm started from."""
        return self.pretrained[arm][1]


def _trained_as_all(block: Mapping[str, Any]) -> bool:
    """Whether an arm has neither extra updates nor a recipe of its own."""
    return not block.get("extra_updates") and not block.get("recipe")


def _of_thesis(block: Mapping[str, Any], methods: Mapping[str, Any]) -> bool:
    kind, _, name = block["weights"].partition("/")
    plain = not block.get("options") and _trained_as_all(block)
    return (
        plain
        and block["augmentation"] in ("none", *AUGMENTATIONS)
        and (kind == "initial" or methods[name]["method"] in METHODS)
    )
