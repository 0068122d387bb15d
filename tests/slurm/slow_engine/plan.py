"""One square of one category in each image."""

from gen4det.core.provenance import seed_for
from gen4det.engines import base


class Planner(base.Planner):
    """Squares."""

    def plan(self):
        category = self.dataset.train.load()["categories"][0]["id"]
        return [
            {"index": i, "batch": i, "seed": seed_for(self.run_seed, "slow", i), "category": category}
            for i in range(self.settings.images)
        ]
