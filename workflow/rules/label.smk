"""Labels of drawn images, for engines whose label step comes after drawing: made again without drawing again.

From <results>/synthetic/<dataset>/<engine>/shards/<shard>.{zip,arrow} to .../<engine>/labels/<shard>.arrow, the same
layout; several variants may label the images of one.
"""


rule label:
    input:
        dataset=jobs.dataset,
        manifest=jobs.manifest,
        shard=jobs.drawn("arrow"),
        images=jobs.drawn("zip"),
        reads=jobs.reads("label"),
        pretrained=jobs.models_of("label"),
    output:
        labels="<results>/synthetic/{dataset}/{engine}/labels/{shard}.arrow",
        record="<results>/synthetic/{dataset}/{engine}/labels/{shard}.arrow.record.json",
    log:
        "<logs>/label/{dataset}/{engine}/{shard}.log",
    benchmark:
        "<benchmarks>/label/{dataset}/{engine}/{shard}.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("label").threads
    resources:
        mem_mb=jobs.memory("label"),
        runtime=jobs.runtime("label"),
        gpu=jobs.needs("label").gpu,
    params:
        job=jobs.label,
        reads=jobs.read_names("label"),
        device=device,
        loaders=loaders,
    message:
        "Label shard {wildcards.shard} of {wildcards.engine} for {wildcards.dataset}"
    shell:
        "python -m gen4det.stages.label --settings {params.job:q} --dataset {input.dataset:q}"
        " --manifest {input.manifest:q} --shard {input.shard:q} --reads {params.reads:q}"
        " --output {output.labels:q} --device {params.device} --workers {params.loaders}"
        " 2>&1 | tee_log {log:q}"
