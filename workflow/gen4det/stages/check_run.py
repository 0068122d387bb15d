"""Is somebody's run within the spread of reference seeds? Says what was compared, what could not be, and why.

    python -m gen4det.stages.check_run --settings '{}' --run FOLDER --reference results/miniature

Both are folders of results, as `results:` of a configuration names them. Status 0: nothing is worse than the
reference; 1: something is; 2: nothing could be compared, or what was asked for is wrong.
"""

import sys
from pathlib import Path

from pydantic import Field, field_validator

from gen4det.core.errors import InputError
from gen4det.core.settings import Settings
from gen4det.evaluation.settings import METRICS
from gen4det.stages._cli import run, stage_parser, stage_settings

EXIT_WORSE = 1


class CheckRunSettings(Settings):
    """What is compared, and how sure one must be."""

    metrics: tuple[str, ...] = ()
    """E.g. box_AP; none: means over all categories and over the groups of them, of boxes and masks."""
    level: float = Field(default=0.05, gt=0, lt=1)
    """Chance of calling anything worse where nothing is, over all comparisons."""

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        for metric in metrics:
            kind, _, name = metric.partition("_")
            if kind not in ("box", "mask") or name not in METRICS:
                raise ValueError(
                    f"no metric {metric!r}; expected box_ or mask_ and one of {', '.join(METRICS)}"
                )
        return metrics


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--run", required=True, type=Path, metavar="FOLDER", help="results to be checked")
    parser.add_argument(
        "--reference", required=True, type=Path, metavar="FOLDER", help="results to check against"
    )
    args = parser.parse_args()
    from gen4det.evaluation import run_check  # loads pandas, scipy

    settings = stage_settings(args, CheckRunSettings)
    check = run_check.check_run(args.run, args.reference, settings.metrics or run_check.METRICS)
    print("\n".join(run_check.in_words(check, settings.level)))
    if not check.comparisons:
        raise InputError(f"{args.run}: nothing could be compared with {args.reference}")
    if check.worse(settings.level):
        sys.exit(EXIT_WORSE)


if __name__ == "__main__":
    run(main)
