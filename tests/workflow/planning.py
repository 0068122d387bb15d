"""What a run in a checkout would do, asked of Snakemake in this process: a quarter of a second."""

import contextlib
import os
import re
from collections import Counter
from unittest import mock

import pytest

from checkouts import CONFIG, Checkout
from gen4det.core import provenance
from gen4det.orchestration import hashes
from gen4det.orchestration.why import stale_results

CACHES = (
    provenance._syntax,
    provenance._direct_imports,
    provenance.module_hash,
    provenance.import_closure,
    provenance.code_hash,
    hashes.folder_hash,
    hashes.sampled_hash,
)


@contextlib.contextmanager
def at_work_in(checkout: Checkout):
    """Hashes of code are those of the checkout, though the code that runs is that of the tests.

    Reading the Snakefile sets variables for the jobs it would start; they must not stay for later tests.
    """
    here = os.getcwd()
    with pytest.MonkeyPatch.context() as patch, mock.patch.dict(os.environ):
        patch.setattr(provenance, "PACKAGE_ROOT", checkout / "workflow")
        for cache in CACHES:
            cache.cache_clear()
        os.chdir(checkout.folder)
        try:
            yield
        finally:
            os.chdir(here)
    for cache in CACHES:
        cache.cache_clear()


def planned_here(checkout: Checkout, *targets: str, config: str = CONFIG) -> Counter:
    """Number of jobs per rule that a run would execute, as `Checkout.planned`."""
    with at_work_in(checkout):
        stale = stale_results(targets, checkout / config)
    return Counter(re.search(r"\((\w+)\)$", heading)[1] for heading, _ in stale)
