"""The one parameter of a job: a JSON text of everything that decides about its result."""

import json

from gen4det.core.provenance import code_hash


def job(settings: dict, stage: str, *modules: str, **more: object) -> str:
    """The one parameter of a job.

    Args:
        settings: what the stage reads.
        stage: name of the module in gen4det.stages.
        modules: further modules it loads by name, whose imports the stage's own do not show.
        more: anything else the result depends on.
    """
    code = code_hash(f"gen4det.stages.{stage}", *modules)
    return json.dumps({"settings": settings, "code": code, **more})
