"""Synthetic images: a manifest says what to draw, shards draw it.

From the dataset's descriptor to <results>/synthetic/<dataset>/<engine>/shards/<shard>.{zip,arrow}.
"""


rule plan:
    input:
        dataset=jobs.dataset,
        reads=jobs.reads("draw"),
        pretrained=jobs.models_of("draw"),
    output:
        manifest="<results>/synthetic/{dataset}/{engine}/manifest.jsonl",
        index="<results>/synthetic/{dataset}/{engine}/manifest.jsonl.index",
        record="<results>/synthetic/{dataset}/{engine}/manifest.jsonl.record.json",
    log:
        "<logs>/plan/{dataset}/{engine}.log",
    benchmark:
        "<benchmarks>/plan/{dataset}/{engine}.tsv"
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("plan").threads
    resources:
        mem_mb=jobs.memory("plan"),
        runtime=jobs.runtime("plan"),
    params:
        job=jobs.plan,
        reads=jobs.read_names("draw"),
    message:
        "Plan what {wildcards.engine} draws for {wildcards.dataset}"
    shell:
        "python -m gen4det.stages.plan --settings {params.job:q} --dataset {input.dataset:q}"
        " --reads {params.reads:q} --output {output.manifest:q}"
        " 2>&1 | tee_log {log:q}"


rule generate:
    input:
        dataset=jobs.dataset,
        manifest="<results>/synthetic/{dataset}/{engine}/manifest.jsonl",
        reads=jobs.reads("draw"),
        pretrained=jobs.models_of("draw"),
    output:
        images="<results>/synthetic/{dataset}/{engine}/shards/{shard}.zip",
        labels="<results>/synthetic/{dataset}/{engine}/shards/{shard}.arrow",
        record="<results>/synthetic/{dataset}/{engine}/shards/{shard}.record.json",
    log:
        "<logs>/generate/{dataset}/{engine}/{shard}.log",
    benchmark:
        "<benchmarks>/generate/{dataset}/{engine}/{shard}.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("generate").threads
    resources:
        mem_mb=jobs.memory("generate"),
        runtime=jobs.runtime("generate"),
        gpu=jobs.needs("generate").gpu,
        slot=1,
    params:
        job=jobs.generate,
        shards=jobs.shards,
        prefix=subpath(output.images, strip_suffix=".zip"),
        reads=jobs.read_names("draw"),
        device=device,
        helpers=helpers,
        budget=budget,
        keep=keep,
    message:
        "Draw shard {wildcards.shard} of {wildcards.engine} for {wildcards.dataset}"
    shell:
        "python -m gen4det.stages.generate --settings {params.job:q} --dataset {input.dataset:q}"
        " --manifest {input.manifest:q} --shard $((10#{wildcards.shard})) --shards {params.shards}"
        " --output {params.prefix:q} --device {params.device} --workers {params.helpers}"
        " --reads {params.reads:q} {params.budget} {params.keep}"
        " 2>&1 | tee_log {log:q}"
