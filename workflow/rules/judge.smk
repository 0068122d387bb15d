"""Of the miniature: what its generators draw for engines, judged by a detector that has seen renderings alone.

    snakemake --profile local results/miniature/judge/lvis/mosaicfusion.json

No table reads a judgement: it tells a poor generator from a poor idea.
"""


rule judge_renderings:
    output:
        dataset="<results>/judge/renderings/dataset.json",
        record="<results>/judge/renderings/dataset.json.record.json",
    log:
        "<logs>/judge/renderings.log",
    benchmark:
        "<benchmarks>/judge/renderings.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("data").threads
    resources:
        mem_mb=jobs.memory("data"),
        runtime=jobs.runtime("data"),
    params:
        job=judge_jobs.render,
    message:
        "Render what the judge's detector learns from"
    shell:
        "python -m gen4det.stages.judge_canvases render --settings {params.job:q} --output {output.dataset:q}"
        " 2>&1 | tee_log {log:q}"


rule judge_detector:
    input:
        dataset="<results>/judge/renderings/dataset.json",
    output:
        weights="<results>/judge/detector/weights.safetensors",
        losses="<results>/judge/detector/losses.csv",
        record="<results>/judge/detector/weights.safetensors.record.json",
    log:
        "<logs>/judge/detector.log",
    benchmark:
        "<benchmarks>/judge/detector.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("train").threads
    resources:
        mem_mb=jobs.memory("train"),
        runtime=jobs.runtime("train"),
        gpu=jobs.needs("train").gpu,
    params:
        job=judge_jobs.train,
        launcher=launcher,
        device=device,
        loaders=loaders,
        budget=budget,
    message:
        "Train the judge's detector on renderings"
    shell:
        "{params.launcher} gen4det.stages.train --settings {params.job:q} --dataset {input.dataset:q}"
        " --output {output.weights:q} --device {params.device} --workers {params.loaders} {params.budget}"
        " 2>&1 | tee_log {log:q}"


rule judge:
    input:
        detector="<results>/judge/detector/weights.safetensors",
        manifest=jobs.manifest,
        shards=jobs.labels,
        images=jobs.shard_images,
    output:
        judgement="<results>/judge/{dataset}/{engine}.json",
        record="<results>/judge/{dataset}/{engine}.json.record.json",
    log:
        "<logs>/judge/{dataset}/{engine}.log",
    benchmark:
        "<benchmarks>/judge/{dataset}/{engine}.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("measure").threads
    resources:
        mem_mb=jobs.memory("measure"),
        runtime=jobs.runtime("measure"),
        gpu=jobs.needs("measure").gpu,
    params:
        job=judge_jobs.judge,
        models=judge_jobs.models,
        device=device,
    message:
        "Judge what {wildcards.engine} draws for {wildcards.dataset}"
    shell:
        "python -m gen4det.stages.judge_canvases judge --settings {params.job:q} --detector {input.detector:q}"
        " --manifest {input.manifest:q} --shards {input.shards:q} {params.models} --device {params.device}"
        " --output {output.judgement:q}"
        " 2>&1 | tee_log {log:q}"
