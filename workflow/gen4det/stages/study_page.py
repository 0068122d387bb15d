"""One page on a whole study, to be opened without a server and handed on: a single file of HTML.

Table, published numbers, figures, engines, images kept and rejected, losses, the way back from each number.
Writes <output>, beside it methods.md and references.bib for a paper, and <output>.record.json. Equal inputs
give equal files. No torch.
"""

import logging
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import RunRecord, atomic_write
from gen4det.evaluation.page_settings import PageSettings
from gen4det.stages._cli import run, stage_parser, stage_settings

log = logging.getLogger("gen4det.study_page")


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument(
        "--metrics",
        nargs="+",
        required=True,
        metavar="ARM:SEED=FILE",
        help="metrics.json files; their records and losses lie around them",
    )
    parser.add_argument(
        "--synthetic", nargs="*", default=[], metavar="NAME=FILE", help="<data set>/<engine>=set.json"
    )
    parser.add_argument(
        "--sets",
        nargs="*",
        default=[],
        metavar="NAME=FILE",
        help="<data set>/<engine>=measures.json or fidelity.json",
    )
    parser.add_argument("--figures", nargs="*", default=[], metavar="CAPTION=FILE", help="pictures, .png")
    parser.add_argument(
        "--fits", nargs="*", default=[], metavar="NAME=FILE", help="losses.csv of what engines learned"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the page, .html")
    args = parser.parse_args()
    from gen4det.evaluation.bibliography import to_bibtex
    from gen4det.evaluation.methods import cited_keys, methods_paragraphs, to_markdown
    from gen4det.evaluation.set_columns import read_sets, set_values  # loads pandas
    from gen4det.evaluation.study_page import page_context, render
    from gen4det.evaluation.study_table import parse_argument, read_metrics, study_rows

    settings = stage_settings(args, PageSettings)
    metrics, _ = read_metrics(args.metrics, settings.table)
    files = {(arm, seed): path for arm, seed, path in map(parse_argument, args.metrics)}
    named = {kind: _named(getattr(args, kind), f"--{kind}") for kind in ("synthetic", "figures", "fits")}
    _check_sets(settings, named["synthetic"])
    measures = read_sets(args.sets)
    inputs = [*files.values(), *(path for some in named.values() for path in some.values())]
    inputs += [Path(it.partition("=")[2]) for it in args.sets]
    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.study_page",),
        inputs=tuple(dict.fromkeys(inputs)),
    ):
        shown = settings.table
        rows = study_rows(shown, metrics)
        values = set_values(shown, rows, measures) if shown.sets else {}
        paragraphs = methods_paragraphs(settings, metrics, files, measures)
        context = page_context(
            settings, rows, metrics, files, measures=measures, values=values, paragraphs=paragraphs, **named
        )
        texts = {
            args.output.name: render(context),
            "methods.md": to_markdown(shown.title, paragraphs),
            "references.bib": to_bibtex(settings.references, cited_keys(paragraphs)),
        }
        for name, text in texts.items():
            with atomic_write(args.output.with_name(name)) as temporary:
                temporary.write_text(text, encoding="utf-8")
    log.info("%s: %.1f MB", args.output, args.output.stat().st_size / 1e6)


def _named(arguments: list[str], option: str) -> dict[str, Path]:
    found = {}
    for argument in arguments:
        name, _, path = argument.rpartition("=")
        if not name or not path:
            raise InputError(f"{option} {argument}: expected NAME=FILE")
        if not Path(path).is_file():
            raise InputError(f"{option} {argument}: no such file")
        found[name] = Path(path)
    return found


def _check_sets(settings: PageSettings, given: dict[str, Path]) -> None:
    if missing := [name for name in settings.sets if name not in given]:
        raise InputError(f"--synthetic: {missing[0]} is not given; the settings name it")
    if other := [name for name in given if name not in settings.sets]:
        raise InputError(f"--synthetic: {other[0]}: no set of this study")


if __name__ == "__main__":
    run(main)
