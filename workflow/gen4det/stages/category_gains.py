"""Average precision of every category, and what each arm gains in it, from the metrics.json files of a study.

Writes a CSV file and a figure (.pdf and .png): gain against the number of real training images.
"""

from pathlib import Path

from gen4det.core.provenance import RunRecord, atomic_write
from gen4det.evaluation.study_settings import StudySettings
from gen4det.stages._cli import run, stage_parser, stage_settings


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument(
        "--metrics", nargs="+", required=True, metavar="ARM:SEED=FILE", help="metrics.json files"
    )
    parser.add_argument("--figure", type=Path, required=True, metavar="FILE", help="<name>.pdf")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="<name>.csv")
    args = parser.parse_args()
    from gen4det.evaluation.category_gains import (
        category_rows,
        gain_figure,
        to_csv,
    )  # loads pandas, matplotlib
    from gen4det.evaluation.plotting import save_figure
    from gen4det.evaluation.study_table import read_metrics

    settings = stage_settings(args, StudySettings)
    metrics, paths = read_metrics(args.metrics, settings)
    code = ("gen4det.stages.category_gains",)
    with RunRecord(args.output, settings=settings.model_dump(mode="json"), code=code, inputs=tuple(paths)):
        rows = category_rows(settings, metrics)
        save_figure(gain_figure(settings, rows), args.figure)
        with atomic_write(args.output) as temporary:
            temporary.write_text(to_csv(rows), encoding="utf-8")


if __name__ == "__main__":
    run(main)
