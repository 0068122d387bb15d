"""Tables, figures and pages of generated images.

table    <name>.csv, .md, .html and .tex from metrics.json files, one row per arm
figure   <name>.pdf and .png from the same files
gallery  <name>.pdf and .png from generated images, kept and rejected

Each writes <output>.record.json as well. Equal inputs give equal files.
"""

import argparse
import logging
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import RunRecord, atomic_write
from gen4det.evaluation.study_settings import GallerySettings, StudySettings
from gen4det.stages._cli import run, stage_parser, stage_settings

log = logging.getLogger("gen4det.plot")

CODE = ("gen4det.stages.plot",)


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("what", choices=("table", "figure", "gallery"))
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="ARM:SEED=FILE",
        help="metrics.json files; ARM:SEED= may be left out of <arm>/seed<seed>/<data set>/<file>",
    )
    parser.add_argument(
        "--sets",
        nargs="*",
        default=[],
        metavar="NAME=FILE",
        help="<data set>/<engine>=measures.json or fidelity.json, for a table that tells of its sets",
    )
    parser.add_argument(
        "--shards", nargs="+", default=[], metavar="FILE", help="shard JSON files of one engine"
    )
    parser.add_argument("--synthetic", nargs="+", default=[], metavar="FILE", help="set.json per engine")
    parser.add_argument("--output", required=True, metavar="FILE", help="<name>.csv, or <name>.pdf")
    args = parser.parse_args()
    {"table": table, "figure": figure, "gallery": gallery}[args.what](args)


def table(args: argparse.Namespace) -> None:
    """Write the CSV file and, beside it, the same for people (.md, .html) and papers (.tex)."""
    from gen4det.evaluation.set_columns import read_sets, set_values  # loads pandas
    from gen4det.evaluation.study_table import read_metrics, study_rows, to_csv
    from gen4det.evaluation.table_text import sets_table, to_html, to_latex, to_markdown

    settings = stage_settings(args, StudySettings)
    output = _output(args.output, ".csv")
    metrics, paths = read_metrics(args.metrics, settings)
    measured = read_sets(args.sets)
    paths = [*paths, *(Path(it.partition("=")[2]) for it in args.sets)]
    with RunRecord(
        output, settings=settings.model_dump(mode="json"), code=CODE, inputs=tuple(dict.fromkeys(paths))
    ) as record:
        rows = study_rows(settings, metrics)
        sets = set_values(settings, rows, measured) if settings.sets else {}
        record.add(seeds_missing={row.arm: list(row.missing) for row in rows if row.missing})
        more = {arm: {**it.values, "devices": ", ".join(it.devices)} for arm, it in sets.items()}
        texts = {
            ".md": to_markdown(settings, rows) + (f"\n{sets_table(settings, rows, sets)}" if sets else ""),
            ".html": to_html(settings, rows),
            ".tex": to_latex(settings, rows),
            ".csv": to_csv(settings, rows, more),
        }
        for suffix, text in texts.items():
            with atomic_write(output.with_suffix(suffix)) as temporary:
                temporary.write_text(text, encoding="utf-8")
    for row in rows:
        if row.missing:
            log.warning("%s: seeds %s", row.arm, row.seeds)


def figure(args: argparse.Namespace) -> None:
    """Write the figure of a study."""
    from gen4det.evaluation.figures import study_figure
    from gen4det.evaluation.plotting import save_figure
    from gen4det.evaluation.study_table import read_metrics

    settings = stage_settings(args, StudySettings)
    output = _output(args.output, ".pdf", ".png")
    metrics, paths = read_metrics(args.metrics, settings)
    with RunRecord(output, settings=settings.model_dump(mode="json"), code=CODE, inputs=tuple(paths)):
        save_figure(study_figure(settings, metrics), output, dpi=300)


def gallery(args: argparse.Namespace) -> None:
    """Write a page of generated images.

    Raises:
        InputError: neither shards nor synthetic sets are given.
    """
    from gen4det.evaluation.gallery import gallery_page, read_shards, read_synthetic
    from gen4det.evaluation.plotting import save_figure

    settings = stage_settings(args, GallerySettings)
    output = _output(args.output, ".pdf", ".png")
    if not args.shards and not args.synthetic:
        raise InputError("gallery: --shards or --synthetic is needed")
    inputs = (*args.shards, *args.synthetic)
    sets = [read_synthetic(path) for path in args.synthetic]
    if args.shards:
        sets.append(read_shards(args.shards))
    with RunRecord(
        output,
        settings=settings.model_dump(mode="json"),
        code=CODE,
        seeds={"choice": settings.seed},
        inputs=inputs,
    ):
        save_figure(gallery_page(settings, sets), output, dpi=200)


def _output(text: str, *suffixes: str) -> Path:
    path = Path(text)
    if path.suffix not in suffixes:
        raise InputError(f"--output {text}: expected a name that ends in {' or '.join(suffixes)}")
    return path


if __name__ == "__main__":
    run(main)
