"""Names and numbers for readers: organs, arms, lists, rounded numbers."""

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from math import ceil, log10

from kidney_ssl.statistics.result import Estimate
from kidney_ssl.yamlfile import read_yaml

WORDS: dict[str, dict[str, str]] = read_yaml((files("kidney_ssl.report") / "words.yaml").read_text(encoding="utf-8"))
ARMS = WORDS["arms"]
# A name of KiTS's classes in what people read, with its article; no part of a key such as auroc_against_kidney, and not
# this project's name.
PAIR = re.compile(r"\b(\w+) - (\w+):")  # two arms in what a verdict rests on
CLASS = re.compile(
    r"(?<![\w./-])(?:(?P<article>a) )?(?P<name>kidney|tumor|cyst)(?P<plural>s?)\b(?!-ssl)", re.IGNORECASE
)
PROPER = ("ImageNet", "Models", "SimCLR", "CPC", "VICReg", "Barlow", "BYOL", "MoCo", "DINO")


def spoken(text: str, classes: Mapping[str, str]) -> str:
    """Say a study's own words in a text of this package, all of which are written for kidneys, tumors and cysts.

    Args:
        text: Markdown or HTML.
        classes: names of organ, tumor and cyst, see `data.classes` in params.yaml.
    """
    names = {"kidney": classes["organ"], "tumor": classes["tumor"], "cyst": classes["cyst"]}

    def own(found: re.Match[str]) -> str:
        name = names[found["name"].lower()]
        if name == found["name"].lower():
            return found[0]
        article = "" if found["article"] is None else found["article"] + ("n " if name[0] in "aeiou" else " ")
        if found["plural"]:
            name = _several(name)
        return article + (name.capitalize() if found["name"][0].isupper() else name)

    return CLASS.sub(own, text)


def _several(name: str) -> str:
    """Write the plural: lungs, pancreases, metastases."""
    if name.endswith("is"):
        return name[:-2] + "es"
    return name + ("es" if name.endswith(("s", "x")) else "s")


def arm_name(arm: str) -> str:
    """Name an arm or a pretraining: `simclr` is SimCLR, `rotation_imagenet` is Rotation (ImageNet)."""
    key = max((key for key in ARMS if arm == key or arm.startswith(f"{key}_")), key=len, default="")
    rest = [word.replace("imagenet", "ImageNet") for word in (arm[len(key) :] if key else f"_{arm}").split("_")[1:]]
    if not key:
        return " ".join(rest)[:1].upper() + " ".join(rest)[1:]
    return f"{ARMS[key]} ({', '.join(rest)})" if rest else ARMS[key]


def in_sentence(name: str) -> str:
    """Write a name as it stands within a sentence: proper names keep their capital."""
    return name if name.startswith(PROPER) or not name else name[0].lower() + name[1:]


def named(text: str) -> str:
    """Name the arms of the differences in a text: "simclr - random: +0.02" is "SimCLR - random weights: +0.02"."""
    return PAIR.sub(lambda pair: f"{arm_name(pair[1])} - {in_sentence(arm_name(pair[2]))}:", text)


def network_name(network: str) -> str:
    """Name an encoder: `resnet18` is ResNet-18."""
    return WORDS["networks"].get(network, network)


def listed(names: Sequence[str]) -> str:
    """Join names: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def plural(count: int, word: str) -> str:
    """Count things: 1 case, 1,200 cases."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def digits_of(one: Estimate) -> int:
    """Decimals to show for an estimate, 2 to 4: the last one is worth between a tenth and all of the half-width.

    One more if an end of the interval would be rounded to 0.
    """
    if one.low is None or one.high is None or one.high <= one.low:
        return 2
    digits = max(ceil(-log10((one.high - one.low) / 2)), 2)
    return min(digits + any(end and abs(end) < 0.5 * 10**-digits for end in (one.low, one.high)), 4)


def worded(one: Estimate, *, signed: bool = False, interval: bool = True, digits: int | None = None) -> str:
    """Write an estimate, "0.81 (0.70 to 0.90)"; a dash if it is unknown."""
    if one.value is None:
        return "-"
    form = f"{'+' if signed else ''},.{digits_of(one) if digits is None else digits}f"
    value, low, high = ("" if end is None else _signless(f"{end:{form}}") for end in (one.value, one.low, one.high))
    return f"{value} ({low} to {high})" if interval and low and high else value


def _signless(text: str) -> str:
    """Remove the sign of a number that rounds to zero."""
    return text if text.strip("+-0.,") else text.lstrip("+-")
