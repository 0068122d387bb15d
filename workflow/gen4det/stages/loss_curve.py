"""Draw the losses of a training.

Reads the losses.csv that a training wrote and writes <output>, a PNG. Apart from the training, so that a new
colour trains nothing again.
"""

from pathlib import Path

from gen4det.core.provenance import atomic_write
from gen4det.core.settings import Settings
from gen4det.stages._cli import run, stage_parser, stage_settings


class LossCurveSettings(Settings):
    """Settings of this stage."""

    dpi: int = 160
    """Dots per inch of the figure, which is 5 inches wide."""


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--losses", required=True, metavar="FILE", help="losses.csv of a training")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="losses.png")
    args = parser.parse_args()
    settings = stage_settings(args, LossCurveSettings)

    from gen4det.evaluation.loss_curve import loss_curve
    from gen4det.evaluation.plotting import style

    figure = loss_curve(args.losses)
    with atomic_write(args.output) as temporary, style():
        figure.savefig(temporary, dpi=settings.dpi, format="png", metadata={"Software": None})


if __name__ == "__main__":
    run(main)
