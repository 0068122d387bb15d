"""Draw what a filter kept and what it rejected, and why.

Writes <output> (.pdf, with a .png beside it): share of labels kept per frequency group, and images with kept
and rejected boxes; and <output>.record.json.
"""

from gen4det.core.provenance import RunRecord
from gen4det.core.settings import Settings
from gen4det.stages._cli import run, stage_parser, stage_settings


class FilterPageSettings(Settings):
    """Settings of this stage."""

    seed: int = 0
    """Which images are shown."""


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument(
        "--synthetic", required=True, metavar="FILE", help="set.json; verdicts.arrow beside it"
    )
    parser.add_argument("--fractions", required=True, metavar="FILE", help="filter.csv")
    parser.add_argument("--output", required=True, metavar="FILE", help="filter.pdf")
    args = parser.parse_args()
    settings = stage_settings(args, FilterPageSettings)

    from gen4det.evaluation.filter_page import filter_page, read_fractions
    from gen4det.evaluation.gallery import read_synthetic
    from gen4det.evaluation.plotting import save_figure

    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.filter_page",),
        seeds={"choice": settings.seed},
        inputs=(args.synthetic, args.fractions),
    ):
        page = filter_page(read_synthetic(args.synthetic), read_fractions(args.fractions), seed=settings.seed)
        save_figure(page, args.output)


if __name__ == "__main__":
    run(main)
