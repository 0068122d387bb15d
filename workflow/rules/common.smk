"""Configuration, checked before anything else happens, and what all rules share."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir, "workflow")))

from gen4det.core.errors import InputError
from gen4det.orchestration.commands import (
    device,
    helpers,
    keep_batches,
    loaders,
    shell_prefix,
    time_budget,
)
from gen4det.orchestration.fidelity_jobs import FidelityJobs
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.judge_jobs import JudgeJobs
from gen4det.orchestration.label_jobs import LabelJobs
from gen4det.orchestration.lineage import follow_inputs, ignore_times
from gen4det.orchestration.messages import (
    explain_failures,
    explain_locks,
    note_run,
    say_last,
)
from gen4det.orchestration.needs import launcher
from gen4det.orchestration.page_jobs import PageJobs
from gen4det.orchestration.project import load_project
from gen4det.orchestration.slurm import (
    discard_kept_batches,
    end_jobs_left_behind,
    shares_allocation,
    tell_attempt,
)
from gen4det.orchestration.snakemake_metadata import adopt_results

# A scale file given on the command line replaces the default: merging them key by key would mix two scales.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


try:
    jobs = Jobs(
        load_project(
            config,
            source=" + ".join(os.path.relpath(file) for file in workflow.configfiles),
            root=workflow.basedir,
        )
    )
    jobs.check_targets(
        sys.argv
    )  # Snakemake itself does not tell yet what it is to make
except InputError as error:
    sys.exit(str(error))  # one line; an exception would add Snakemake's own three

judge_jobs = JudgeJobs(jobs)
label_jobs = LabelJobs(jobs)
fidelity_jobs = FidelityJobs(jobs)
page_jobs = PageJobs(jobs)

shell.prefix(
    shell_prefix(
        workflow.basedir,
        # env-modules is the third method; no rule names a module, so it means: jobs bring no environment
        environments=any(
            method.name in ("CONDA", "APPTAINER")
            for method in workflow.deployment_settings.deployment_method
        ),
    )
)


# For `software-deployment-method: apptainer`, where the site has that and no conda; envs/gen4det.def makes it.
container: "envs/gen4det.sif"


# Shards that a profile packs into one allocation (`groups`) take turns on its GPU: each needs the slot, of which
# the profile allows one. "local" counts it within an allocation; without a profile's limit it does nothing.
resource_scopes:
    slot="local",


tell_attempt(sys.argv)

# Jobs of the main process run on this machine; all others run where a scheduler ends them after `runtime`.
budget = time_budget(limited=not workflow.is_main_process)
keep = keep_batches(packed=shares_allocation(sys.argv))

if workflow.is_main_process and "--unlock" not in sys.argv:
    if note := explain_locks(Path(".snakemake")):
        print(note, file=sys.stderr)


onstart:
    note_run(Path(".snakemake"))
    adopt_results(workflow, say=lambda line: print(line, file=sys.stderr))
    if workflow.executor_plugin.name == "slurm":
        try:
            end_jobs_left_behind(
                Path.cwd(), say=lambda line: print(line, file=sys.stderr)
            )
        except InputError as error:
            sys.exit(str(error))


onsuccess:
    discard_kept_batches(Path(jobs.results))


onerror:
    say_last("", "What failed:", *explain_failures(log))


pathvars:
    results=jobs.results,
    logs=f"{jobs.results}/logs",
    benchmarks=f"{jobs.results}/benchmarks",
    foundation=jobs.foundation.folder,


wildcard_constraints:
    dataset=jobs.names("dataset"),
    on=jobs.names("dataset"),
    detector=jobs.names("detector"),
    engine=jobs.names("engine"),
    arm=jobs.names("arm"),
    study=jobs.names("study"),
    step=jobs.names("step"),
    seed=r"\d+",
    shard=r"\d{5}",
    part="|".join(jobs.foundation.parts()),
