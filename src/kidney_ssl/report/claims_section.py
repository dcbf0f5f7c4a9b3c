"""The page's section on the thesis's claims, and its first lines about them."""

from typing import Any

from kidney_ssl.report.claim_evidence import NOT_ASKED, VERDICTS
from kidney_ssl.report.claims import oracle_words, why
from kidney_ssl.report.study import Study


def claims_section(study: Study) -> dict[str, Any]:
    """Lay out the verdicts with what they rest on, and the rules."""
    claims = study.claims.get("claims", [])
    if not claims:
        return {"rows": [], "oracle": ""}
    return {
        "rows": [one | {"why": why(one), "order": VERDICTS.index(one["verdict"])} for one in claims],
        "oracle": oracle_words(study.claims["oracle"]),
    }


def claim_findings(study: Study) -> list[str]:
    """Say how the claims came out, and whether a benefit could have shown."""
    claims = study.claims.get("claims", [])
    if not claims:
        return []
    counts = {verdict: sum(one["verdict"] == verdict for one in claims) for verdict in VERDICTS}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    said = [f"Of the thesis's {len(claims)} claims, by rules fixed beforehand: {told}."]
    for verdict in VERDICTS[:2]:
        sentences = [one["sentence"].removesuffix(".") for one in claims if one["verdict"] == verdict]
        if sentences:
            said.append(f"{verdict.capitalize()}: {'; '.join(sentences)}.")
    if oracle_judged(study):
        said.append(oracle_words(study.claims["oracle"]))
    return said


def oracle_judged(study: Study) -> bool:
    """Whether the oracle was compared with its start at a small budget."""
    return bool(study.claims.get("oracle", {}).get("verdict", NOT_ASKED) != NOT_ASKED)
