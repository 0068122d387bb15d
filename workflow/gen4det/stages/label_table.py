"""Table and figure of how right the labels of a study's synthetic sets are, from what `label_quality`
measured. No torch.

Writes <output> (.csv), the same for people (.md), <figure> (.pdf, with a .png beside it) and
<output>.record.json.
"""

from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import RunRecord, atomic_write
from gen4det.core.settings import Settings
from gen4det.stages._cli import run, stage_parser, stage_settings


class LabelTableSettings(Settings):
    """Settings of this stage."""

    scale: str
    """What the numbers were measured at."""
    labels: dict[str, str] = {}
    """Words for a set, by <data set>/<engine>."""


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument(
        "--rows", required=True, nargs="+", metavar="NAME=FILE", help="<data set>/<engine>=label_quality.json"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="<name>.csv")
    parser.add_argument("--figure", required=True, type=Path, metavar="FILE", help="<name>.pdf")
    args = parser.parse_args()
    settings = stage_settings(args, LabelTableSettings)

    from gen4det.data.images import ImageStore
    from gen4det.evaluation.label_quality import figure, read_quality, row, to_csv, to_markdown
    from gen4det.evaluation.plotting import save_figure
    from gen4det.evaluation.table_text import SCALE_NOTES

    pairs = [given.partition("=") for given in args.rows]
    if bad := next((name for name, _, path in pairs if not (path and "/" in name)), None):
        raise InputError(f"--rows {bad}: expected <data set>/<engine>=FILE")
    files = {name: Path(path) for name, _, path in pairs}
    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.label_table",),
        inputs=tuple(files.values()),
    ):
        found = {name: read_quality(path) for name, path in files.items()}
        words = {name: settings.labels.get(name, name) for name in files}
        pictures = {}
        for name, path in files.items():
            store = ImageStore(path.with_suffix(".zip"))
            pictures[words[name]] = [store.image(it["image"]) for it in found[name]["shown"]]
        rows = [row(name, words[name], quality) for name, quality in found.items()]
        note = SCALE_NOTES.get(settings.scale, "")
        for suffix, text in (
            (".md", to_markdown(rows) + (f"\n{note}\n" if note else "")),
            (".csv", to_csv(rows)),
        ):
            with atomic_write(args.output.with_suffix(suffix)) as temporary:
                temporary.write_text(text)
        save_figure(figure({words[name]: it for name, it in found.items()}, pictures), args.figure)


if __name__ == "__main__":
    run(main)
