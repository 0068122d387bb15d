"""Table and figure of the fidelity of all synthetic sets of a run. No torch.

Writes <output> (.csv), the same for people (.md), <figure> (.pdf, with a .png beside it) and
<output>.record.json.
"""

from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import RunRecord, atomic_write
from gen4det.core.settings import Settings
from gen4det.stages._cli import run, stage_parser, stage_settings


class FidelityTableSettings(Settings):
    """Settings of this stage."""

    scale: str
    """What the numbers were measured at."""
    published: dict[str, dict[str, float | str]] = {}
    """What papers print, by engine."""


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument(
        "--rows",
        required=True,
        nargs="+",
        metavar="NAME=PATH",
        help="<data set>/<engine>=folder of a set; <data set>/real=metrics.json of the detector",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="<name>.csv")
    parser.add_argument("--figure", required=True, type=Path, metavar="FILE", help="<name>.pdf")
    args = parser.parse_args()
    settings = stage_settings(args, FidelityTableSettings)

    from gen4det.evaluation.fidelity_table import figure, read_row, to_csv, to_markdown
    from gen4det.evaluation.plotting import save_figure

    pairs = [given.partition("=") for given in args.rows]
    if bad := next(
        (name for name, separator, path in pairs if not (separator and path and "/" in name)), None
    ):
        raise InputError(f"--rows {bad}: expected <data set>/<engine>=PATH")
    files = [Path(path) for _, _, path in pairs]
    inputs = [path if path.is_file() else path / "fidelity.json" for path in files]
    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.fidelity_table",),
        inputs=tuple(inputs),
    ):
        rows = [
            read_row(name, path, settings.published) for (name, _, _), path in zip(pairs, files, strict=True)
        ]
        for suffix, write in ((".md", to_markdown), (".csv", to_csv)):
            with atomic_write(args.output.with_suffix(suffix)) as temporary:
                temporary.write_text(write(rows, settings.scale))
        save_figure(figure(rows), args.figure)


if __name__ == "__main__":
    run(main)
