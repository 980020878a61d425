"""model_card.md: what the weights are, what they may be used for, and how they were judged (Mitchell et al. 2019)."""

import json

from skullgan_jax.evaluate.measures.table import MEASURES, written
from skullgan_jax.slices.size import SIZE


def markdown(model, metrics: dict) -> str:
    """The card of a model.

    Args:
      model: a model.Model.
      metrics: of judge.evaluate.

    Returns:
      Markdown; no path of the machine, no name of a patient: subjects are counted, never listed.
    """
    pair, sets = model.pair, metrics["sets"]
    provenance = json.dumps(model.provenance, indent=2, default=str)
    known = "train" in sets and metrics["memorisation"]["trained_on"] is not False
    trained_on = _slices(sets["train"]) if known else "see provenance"
    judged = _slices(sets["real"], "held-out ")
    kind = "" if pair.d_norm == "batch" else ", without BatchNorm in the discriminator"
    kind += ", which is told how much a batch differs" * (pair.d_batch_std > 0)
    lines = [
        "# Model card: synthetic CT slices of the human skull",
        "",
        "**Research use only.** Synthetic slices are no basis for a clinical decision.",
        "",
        "## The model",
        "",
        f"- SkullGAN (arXiv 2308.00206) by skullgan_jax {metrics['version']}: nc {pair.nc}, nz {pair.nz}, ngf "
        f"{pair.ngf}, " + (f"ndf {pair.ndf}{kind}" if model.d_params is not None else "no discriminator"),
        f"- Output: {SIZE} x {SIZE} pixels of {model.pixel_mm:g} mm in HU; -1 to +1 is {model.calibration} HU. "
        "Outer table on top, 0 outside of bone.",
        f"- Trained on: {trained_on}",
        "",
        "## Use",
        "",
        "- Meant for: training and testing networks and acoustic simulations where curated CT is scarce.",
        "- Not meant for: diagnosis, treatment planning of a person, or standing in for real data in a regulatory "
        "claim.",
        "",
        "## How it was judged",
        "",
        f"On {sets['fake']['num']:,} samples against {judged}. {metrics['verdict']['headline']}.",
        "",
        *(f"- {x['what']}{_word(x['passes'])}: {x['text']}" for x in metrics["verdict"]["lines"]),
        "",
    ]
    if "tests" in metrics:
        lines += ["| distance | real halves | limit | samples | |", "|---|---|---|---|---|"]
        for name, measure in MEASURES.items():
            test = metrics["tests"][name]
            cells = [written(name, x) for x in (test["floor"], test["limit"], test["fake"]["value"])]
            lines.append(
                f"| {measure.label} | {' | '.join(cells)} | {'passes' if test['fake']['passes'] else 'fails'} |"
            )
        lines.append("")
    if "fid" in metrics:
        lines += [f"FID {metrics['fid']['value']:.1f} ({metrics['fid']['protocol']}).", ""]
    lines += [
        "## Limits",
        "",
        *(f"- {x}" for x in (*metrics["notes"], *metrics["left_out"])),
        "- Passing means that these tests, with so many slices, see no difference; not that there is none.",
        "- The generator knows the heads, scanners and kernels it was trained on, and no others.",
        "",
        "## Provenance",
        "",
        "```json",
        provenance,
        "```",
    ]
    return "\n".join(lines) + "\n"


def _slices(about: dict, which: str = "") -> str:
    subjects = f" of {about['subjects']} subjects" if about["subjects"] else ""
    return f"{about['num']:,} {which}slices{subjects}"


def _word(passes: bool | None) -> str:
    return "" if passes is None else " (passes)" if passes else " (fails)"
