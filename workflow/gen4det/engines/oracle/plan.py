"""What the oracle draws: the canvases of another manifest, the same categories in the same places."""

from gen4det.core.errors import InputError
from gen4det.data.manifests import read_manifest
from gen4det.engines import base
from gen4det.engines.oracle.settings import Settings

KEPT = ("index", "batch", "seed", "height", "width")


class Planner(base.Planner):
    """Takes what the other engine asks for, not how."""

    settings: Settings

    def plan(self) -> list[dict]:
        """Rows {*KEPT, "regions": [{"category_id", "box", "core"}]}; see MosaicFusion's `plan_manifest`."""
        rows = read_manifest(self.inputs.manifest)
        for row in rows:
            if not all("core" in region for region in row.get("regions") or [{}]):
                raise InputError(
                    f"oracle: of: {self.settings.of}: image {row['index']} is no canvas of regions to draw"
                )
        return [
            {key: row[key] for key in KEPT}
            | {"regions": [{key: it[key] for key in ("category_id", "box", "core")} for it in row["regions"]]}
            for row in rows
        ]
