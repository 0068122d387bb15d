"""From the shards to one synthetic set: what is offered for training, and what is not and why."""


rule filter:
    input:
        dataset=jobs.dataset,
        shards=jobs.shards,
        images=jobs.shard_images,
    output:
        annotations="<results>/synthetic/{dataset}/{engine}/annotations.json",
        rejected="<results>/synthetic/{dataset}/{engine}/rejected.json",
        fractions="<results>/synthetic/{dataset}/{engine}/filter.csv",
        record="<results>/synthetic/{dataset}/{engine}/annotations.json.record.json",
    log:
        "<logs>/filter/{dataset}/{engine}.log",
    benchmark:
        "<benchmarks>/filter/{dataset}/{engine}.tsv"
    conda:
        "../../envs/generate.yaml"
    threads: jobs.needs("filter").threads
    resources:
        mem_mb=jobs.memory("filter"),
        runtime=jobs.runtime("filter"),
    params:
        job=jobs.filter,
    message:
        "Choose from what {wildcards.engine} drew for {wildcards.dataset}"
    shell:
        "python -m gen4det.stages.filter --settings {params.job:q} --dataset {input.dataset:q}"
        " --shards {input.shards:q} --output {output.annotations:q} --rejected {output.rejected:q}"
        " 2>&1 | tee_log {log:q}"
