from snakemake.utils import min_version

min_version("9.27")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/download.smk"
include: "workflow/rules/fit.smk"
include: "workflow/rules/generate.smk"
include: "workflow/rules/label.smk"
include: "workflow/rules/label_quality.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/filter.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/plot.smk"
include: "workflow/rules/page.smk"
include: "workflow/rules/foundation.smk"
include: "workflow/rules/judge.smk"
include: "workflow/rules/fidelity.smk"
include: "workflow/rules/export.smk"


rule all:
    default_target: True
    input:
        jobs.targets(),


# Times of files never count; what a result was made from stands in the parameter of its job.
ignore_times()
follow_inputs(workflow, memory=Path(".snakemake/gen4det.files.json"))
