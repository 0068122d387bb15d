"""What filters look at beside labels: how good images look, and what a detector of real objects finds in them.

Per shard, with the variant that draws the images, so that all variants that share them share this, too:
<results>/synthetic/<dataset>/<engine>/aesthetic/<shard>.json and .../detections/<detector>/seed<k>/<shard>.json.
Thresholds are the filter's alone: another one measures nothing again. Steps of engines may ask a detector about
the real training images, too: <results>/data/<dataset>/detections/<detector>/seed<k>/train.json.
"""


rule rate:
    input:
        shard="<results>/synthetic/{dataset}/{engine}/shards/{shard}.arrow",
        images="<results>/synthetic/{dataset}/{engine}/shards/{shard}.zip",
        pretrained=jobs.rating_models,
    output:
        scores="<results>/synthetic/{dataset}/{engine}/aesthetic/{shard}.json",
        record="<results>/synthetic/{dataset}/{engine}/aesthetic/{shard}.json.record.json",
    log:
        "<logs>/rate/{dataset}/{engine}/{shard}.log",
    benchmark:
        "<benchmarks>/rate/{dataset}/{engine}/{shard}.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("measure").threads
    resources:
        mem_mb=jobs.memory("measure"),
        runtime=jobs.runtime("measure"),
        gpu=jobs.needs("measure").gpu,
    params:
        job=jobs.rate,
        device=device,
        loaders=loaders,
    message:
        "Score how shard {wildcards.shard} of {wildcards.engine} for {wildcards.dataset} looks"
    shell:
        "python -m gen4det.stages.rate --settings {params.job:q} --shard {input.shard:q}"
        " --output {output.scores:q} --device {params.device} --workers {params.loaders}"
        " 2>&1 | tee_log {log:q}"


rule calibrate:
    input:
        dataset=jobs.dataset,
        pretrained=jobs.rating_models,
    output:
        scores="<results>/data/{dataset}/aesthetic.json",
        record="<results>/data/{dataset}/aesthetic.json.record.json",
    log:
        "<logs>/calibrate/{dataset}.log",
    benchmark:
        "<benchmarks>/calibrate/{dataset}.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("measure").threads
    resources:
        mem_mb=jobs.memory("measure"),
        runtime=jobs.runtime("measure"),
        gpu=jobs.needs("measure").gpu,
    params:
        job=jobs.calibrate,
        device=device,
        loaders=loaders,
    message:
        "Score how the real training images of {wildcards.dataset} look"
    shell:
        "python -m gen4det.stages.calibrate --settings {params.job:q} --dataset {input.dataset:q}"
        " --output {output.scores:q} --device {params.device} --workers {params.loaders}"
        " 2>&1 | tee_log {log:q}"


rule detect:
    input:
        dataset=jobs.dataset,
        weights="<results>/detectors/{dataset}/{detector}/real/seed{seed}/weights.safetensors",
        trained="<results>/detectors/{dataset}/{detector}/real/seed{seed}/weights.safetensors.record.json",
        shard="<results>/synthetic/{dataset}/{engine}/shards/{shard}.arrow",
        images="<results>/synthetic/{dataset}/{engine}/shards/{shard}.zip",
    output:
        detections="<results>/synthetic/{dataset}/{engine}/detections/{detector}/seed{seed}/{shard}.json",
        record="<results>/synthetic/{dataset}/{engine}/detections/{detector}/seed{seed}/{shard}.json.record.json",
    log:
        "<logs>/detect/{dataset}/{engine}/{detector}/seed{seed}/{shard}.log",
    benchmark:
        "<benchmarks>/detect/{dataset}/{engine}/{detector}/seed{seed}/{shard}.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("measure").threads
    resources:
        mem_mb=jobs.memory("measure"),
        runtime=jobs.runtime("measure"),
        gpu=jobs.needs("measure").gpu,
    params:
        job=jobs.detect,
        device=device,
        loaders=loaders,
    message:
        "What {wildcards.detector} finds in shard {wildcards.shard} of {wildcards.engine} for {wildcards.dataset}"
    shell:
        "python -m gen4det.stages.detect --settings {params.job:q} --dataset {input.dataset:q}"
        " --weights {input.weights:q} --images {input.shard:q} --output {output.detections:q}"
        " --device {params.device} --workers {params.loaders}"
        " 2>&1 | tee_log {log:q}"


use rule detect as detect_real with:
    input:
        dataset=jobs.dataset,
        weights="<results>/detectors/{dataset}/{detector}/real/seed{seed}/weights.safetensors",
        trained="<results>/detectors/{dataset}/{detector}/real/seed{seed}/weights.safetensors.record.json",
        shard=jobs.dataset,
    output:
        detections="<results>/data/{dataset}/detections/{detector}/seed{seed}/train.json",
        record="<results>/data/{dataset}/detections/{detector}/seed{seed}/train.json.record.json",
    log:
        "<logs>/detect_real/{dataset}/{detector}/seed{seed}.log",
    benchmark:
        "<benchmarks>/detect_real/{dataset}/{detector}/seed{seed}.tsv"
    message:
        "What {wildcards.detector} finds in the real training images of {wildcards.dataset}"
